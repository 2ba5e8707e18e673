"""Moving users' data without losing any: profiles (whole databases and folders), and items (rows) in batches."""

from actorstate.migrate.profiles import Wish, run_profiles

__all__ = ["Wish", "run_profiles"]

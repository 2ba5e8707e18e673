"""Moving users' data without losing any: profiles (whole databases and folders), and items (rows) in batches."""

from actorstate.migrate.items.mapping import FieldMapping
from actorstate.migrate.items.rules import Migration, Rules
from actorstate.migrate.items.run import migrate_items
from actorstate.migrate.profiles import Wish, run_profiles

__all__ = ["FieldMapping", "Migration", "Rules", "Wish", "migrate_items", "run_profiles"]

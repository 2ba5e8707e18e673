"""`python -m actorstate`: the command line."""

import sys

from actorstate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

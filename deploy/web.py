"""The page as gunicorn loads it: `gunicorn --config gunicorn.conf.py web:application`. Read-only; see README.md."""

import os

from actorstate.web.wsgi import application as made

application = made(os.environ.get("ACTORSTATE_DIR", "/var/lib/actorstate"))

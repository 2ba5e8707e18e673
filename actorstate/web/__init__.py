"""Web pages and JSON for jobs: `wsgi.py`, `asgi.py` and `flask.py` serve what `router.py` answers."""

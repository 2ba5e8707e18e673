"""The applications that real servers load: clients made at import, as users do it. `JOBS` names the directory."""

import os

from actorstate.web import asgi as asgi_web
from actorstate.web import wsgi as wsgi_web
from actorstate.web.settings import WebSettings

wsgi = wsgi_web.application(os.environ["JOBS"])
asgi = asgi_web.application(os.environ["JOBS"])
controlled = wsgi_web.application(os.environ["JOBS"], WebSettings(control=lambda _request: "anna"))
live = asgi_web.application(os.environ["JOBS"], WebSettings(control=lambda _request: "anna"))

"""The applications that real servers load: clients made at import, as users do it.

`JOBS` names the directory; with `USED` one of them has asked before its server forks.
"""

import os

from actorstate.web import asgi as asgi_web
from actorstate.web import wsgi as wsgi_web
from actorstate.web.settings import WebSettings
from actorstate.web.values import Request

wsgi = wsgi_web.application(os.environ["JOBS"])
asgi = asgi_web.application(os.environ["JOBS"])
if os.environ.get("USED"):  # before the fork too: its sockets are none that a worker may use
    wsgi.respond(Request("GET", "/api/jobs/import-42"))
hasty = WebSettings(control=lambda _request: "anna", fresh_s=1.5, timeout_s=1.0)
controlled = wsgi_web.application(os.environ["JOBS"], hasty)
live = asgi_web.application(os.environ["JOBS"], hasty)
brief = asgi_web.application(os.environ["JOBS"], WebSettings(control=lambda _request: "anna", stream_s=0.1))

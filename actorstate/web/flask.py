"""A Flask blueprint, for pages behind the host's own login:

    app.register_blueprint(actorstate.web.flask.blueprint(client, WebSettings(control=who)), url_prefix="/jobs")

`before_request` and the app's own error pages work as for any blueprint.
"""

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from actorstate.client.sync import Client
from actorstate.web.settings import WebSettings
from actorstate.web.wsgi import Application

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""All come here: what is not taken gets the same answer as under any other server."""


def blueprint(client: Client, settings: WebSettings | None = None, name: str = "actorstate") -> Blueprint:
    """All routes of `router.py`; within `control` the host's `session` and `current_user` can be read."""
    served, routes = Application(client, settings), Blueprint(name, __name__)

    def serve(path: str = "") -> ResponseReturnValue:
        mount = request.path.removesuffix(path).removesuffix("/")
        below = request.path[len(mount) :].encode().decode("latin-1")  # as WSGI has it: bytes as letters
        place = {"SCRIPT_NAME": request.script_root + mount, "PATH_INFO": below}
        return Response.from_app(served, request.environ | place, buffered=False)

    for rule in ("/", "/<path:path>"):
        routes.add_url_rule(rule, "serve", serve, methods=METHODS, provide_automatic_options=False)
    return routes

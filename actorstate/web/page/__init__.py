"""The page: one HTML file, its script and its style, read once. No build step, nothing from elsewhere, strict CSP."""

from pathlib import Path

from actorstate.web.problem import problem
from actorstate.web.values import REVALIDATE, Headers, Request, Response, tag_of, unless_known

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page:
    """The files beside this one, each under the tag of its content."""

    def __init__(self) -> None:
        here = sorted(Path(__file__).parent.iterdir())
        self._files = {path.name: path.read_bytes() for path in here if path.suffix in TYPES}

    def start(self, request: Request) -> Response:
        """The page itself; which job it shows stands in its address after `?`, which only the script reads."""
        return self._answer(request, "index.html", (("Content-Security-Policy", POLICY),))

    def file(self, request: Request, name: str) -> Response:
        """A file that the page names."""
        if name not in self._files or name == "index.html":
            return problem(404, "no_such_page", "the page has no such file")
        return self._answer(request, name, ())

    def _answer(self, request: Request, name: str, headers: Headers) -> Response:
        body = self._files[name]
        kind = (("Content-Type", TYPES[Path(name).suffix]), *REVALIDATE, *headers)
        return unless_known(request, tag_of(body), Response(200, kind, body))

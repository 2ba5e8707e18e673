"""The OpenAPI description of what `router.py` serves, beside it word for word: a test compares the two."""

from collections.abc import Mapping
from typing import get_args

from actorstate.config import VERSION
from actorstate.core.messages.document import Health, ItemOutcome, Status
from actorstate.core.messages.requests import JOB_ID_PATTERN, MAX_COUNT
from actorstate.web.control import ACTIONS, NEEDED
from actorstate.web.parameters import MAX_CHANGES, MAX_PAGE, USUAL_PAGE

Plain = Mapping[str, object]

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TIME = {"type": "string", "format": "date-time"}
MAYBE_TEXT = {"type": ["string", "null"]}
MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
FREE = {"type": "object"}

NOTES = (
    "The state of long jobs. A query parameter that is not described is ignored; of one given twice the last counts. "
    "A request with `wait` and If-None-Match is held until there is news; above the server's bound of held requests it "
    "is answered at once, with Retry-After (seconds): come again no sooner."
)


def described() -> Plain:
    """The whole description (OpenAPI 3.1)."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "actorstate", "version": VERSION, "description": NOTES},
        "servers": [{"url": ".."}],
        "paths": {**_jobs(), **_actions(), **_server()},
        "components": {"schemas": _schemas()},
    }


def _jobs() -> Plain:
    one = [_job()]
    seen = _parameter("If-None-Match", TEXT, "header")
    items = [*one, _query("outcome", _enum(ItemOutcome)), _query("category", _text(128)), *_page(2048)]
    jobs = [_query("status", _enum(Status)), _query("kind", _text(128)), _query("health", _enum(Health)), *_page(128)]
    at = _query("at", {"anyOf": [{"type": "integer", "minimum": 1}, TIME]})
    before = {"type": "integer", "minimum": 1, "maximum": MAX_COUNT}
    changes = [*one, _query("before", before), _limit(MAX_CHANGES), seen]
    wait = {"type": "number", "minimum": 0, "maximum": 60}
    return {
        "/api/jobs": {"get": _get("A page of jobs, the newest first", [*jobs, seen], "Jobs")},
        "/api/jobs/{id}": {
            "get": _get("One job; ETag is its epoch and revision", [*one, _query("wait", wait), at, seen], "Job", 410)
        },
        "/api/jobs/{id}/items": {"get": _get("A page of what became of its items", [*items, seen], "Items")},
        "/api/jobs/{id}/history": {"get": _get("A page of its changes, the newest first", changes, "Changes", 410)},
        "/api/jobs/{id}/events": {"get": _events()},
        "/api/migration/items/{id}": {"get": _older([*one, seen])},
    }


def _events() -> Plain:
    return {
        "summary": "Each newer state as a server-sent event",
        "parameters": [_job(), _parameter("Last-Event-ID", TEXT, "header")],
        "responses": {
            "200": {"description": "a stream", "content": {"text/event-stream": {}}},
            "204": {"description": "the job has ended, and this reader has its end"},
            **_problems(400, 404, 500, 501, 503),
        },
    }


def _older(parameters: list[Plain]) -> Plain:
    error = _object({"error": TEXT, "message": TEXT}, closed=True)
    missing = {"description": "as the older tool said it", "content": {"application/json": {"schema": error}}}
    answers = {"200": _answer("Older"), "304": {"description": "as the reader has it"}, "404": missing}
    responses = {**answers, **_problems(400, 500, 503)}
    return {"summary": "One job under the older tool's names", "parameters": parameters, "responses": responses}


def _actions() -> Plain:
    bodies: dict[str, Plain] = {
        "retry": {"from_start": {"type": "boolean"}, "where": {"type": "string", "maxLength": 128}},
        "approve": {"question": {"type": "string", "maxLength": 2000}},
    }
    return {f"/api/jobs/{{id}}/{action}": {"post": _action(action, bodies.get(action, {}))} for action in ACTIONS}


def _action(action: str, fields: Plain) -> Plain:
    body = {"type": "object", "properties": fields, "additionalProperties": False}
    return {
        "summary": f"{action.capitalize()} the job",
        "operationId": action,
        "parameters": [_job(), {**_parameter(NEEDED, {"type": "string", "minLength": 1}, "header"), "required": True}],
        "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("Job"), **_problems(400, 403, 404, 409, 413, 500, 503, 504)},
    }


def _server() -> Plain:
    def plain(summary: str, *problems: int) -> Plain:
        return {"get": {"summary": summary, "responses": {"200": _answer("Free"), **_problems(*problems)}}}

    numbers = {"description": "numbers", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "/api/about": plain("What this reader may do"),
        "/api/openapi.json": plain("This description"),
        "/healthz": plain("The web process lives"),
        "/readyz": plain("The writer answers, and its disk is not full", 500, 503),
        "/metrics": {
            "get": {
                "summary": "The writer's numbers, for Prometheus",
                "responses": {"200": numbers, **_problems(500, 503)},
            }
        },
    }


def _get(summary: str, parameters: list[Plain], schema: str, *problems: int) -> Plain:
    answers = {"200": _answer(schema), "304": {"description": "as the reader has it"}}
    responses = {**answers, **_problems(400, 404, 500, 503, *problems)}
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _answer(schema: str) -> Plain:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": "the answer", "content": content}


def _problems(*statuses: int) -> Plain:
    schema = {"$ref": "#/components/schemas/Problem"}
    problem = {"description": "a problem", "content": {"application/problem+json": {"schema": schema}}}
    return {str(status): problem for status in statuses}


def _job() -> Plain:
    schema = {"type": "string", "pattern": JOB_ID_PATTERN.replace(r"\Z", "$")}
    return {"name": "id", "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: Plain) -> Plain:
    return _parameter(name, schema, "query")


def _parameter(name: str, schema: Plain, place: str) -> Plain:
    return {"name": name, "in": place, "required": False, "schema": schema}


def _page(longest: int) -> list[Plain]:
    return [_query("after", _text(longest)), _limit(MAX_PAGE)]


def _limit(highest: int) -> Plain:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": highest, "default": USUAL_PAGE})


def _text(longest: int) -> Plain:
    return {"type": "string", "maxLength": longest, "pattern": r"^[^\x00]*$"}


def _enum(literal: object) -> Plain:
    return {"type": "string", "enum": list(get_args(literal))}


def _object(required: Plain, *, closed: bool = False) -> Plain:
    return {"type": "object", "required": list(required), "properties": required, "additionalProperties": not closed}


def _schemas() -> Plain:
    summary = {
        "id": TEXT,
        "kind": TEXT,
        "status": _enum(Status),
        "phase": MAYBE_TEXT,
        "health": {"enum": [*get_args(Health), None]},
        "labels": FREE,
        "progress": FREE,
        "rate": FREE,
        "epoch": COUNT,
        "revision": COUNT,
        "error_count": COUNT,
        "created_at": TIME,
        "updated_at": TIME,
        "started_at": MAYBE_TIME,
        "finished_at": MAYBE_TIME,
    }
    whole = {**summary, "workers": FREE, "checkpoints": FREE, "steps": _list(FREE), "errors": _list(FREE), "meta": FREE}
    item = {"key": TEXT, "outcome": _enum(ItemOutcome), "attempts": COUNT, "error": TEXT, "last_at": TIME}
    change = {"revision": COUNT, "epoch": COUNT, "at": TIME, "what": TEXT, "who": TEXT, "summary": TEXT}
    older = {"jobId": TEXT, "status": TEXT, "progress": FREE, "errors": _list(FREE), "startedAt": TIME}
    problem = {"type": TEXT, "title": TEXT, "status": COUNT, "detail": TEXT, "code": TEXT}
    return {
        "Free": FREE,
        "Job": _object(whole),
        "Jobs": _object(
            {"jobs": _list(_object({**summary, "workers": COUNT})), "damaged": _list(TEXT), "after": MAYBE_TEXT},
            closed=True,
        ),
        "Items": _object({"items": _list(_object(item)), "damaged": _list(TEXT), "after": MAYBE_TEXT}, closed=True),
        "Changes": _object({"changes": _list(_object(change)), "before": {"type": ["integer", "null"]}}, closed=True),
        "Older": _object(older),
        "Problem": _object(problem, closed=True),
    }


def _list(item: Plain) -> Plain:
    return {"type": "array", "items": item}

"""One job's file: the older tool's shape, and under one more key, `actorstate`, all that the shape lacks.

    {"id": ..., "status": ..., ...the older tool's fields...,
     "actorstate": {"format": 1, "revision", "index": {"kind", "status", "health"}, "deleted"?,
                    "keyframe": {...}, "since"?: [...], "original"?: {...}, "digest"}}

`keyframe` is the job whole, readable (or `{"packed": base64}` where its bytes are none of ours), `since`
the changes after it, `original` the file that the job was adopted from. `digest` is BLAKE2b over the id
and everything else, as values: a tool that only formats the file anew, or writes 1.0 as 1, changes nothing.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, cast

from actorstate.core import codec
from actorstate.errors import CorruptJob, ForeignEdit, StoreTooNew
from actorstate.store.contract import IndexRow, StoredChange
from actorstate.store.jsonfiles.shape import shaped, unshaped
from actorstate.store.jsonfiles.words import STATUS_OF, Plain, plain_list, plain_object

KEY = "actorstate"
FORMAT = 1
EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class Held:
    """What one file holds of a job: its newest keyframe, if any, and the changes since."""

    job: str
    revision: int
    index: IndexRow
    keyframe: StoredChange | None = None
    since: tuple[StoredChange, ...] = ()
    deleted: bool = False


def text_of(held: Held) -> bytes:
    """The file's content."""
    shape = unshaped(held.job, held.index.kind, held.index.status)
    ours = Plain(format=FORMAT, revision=held.revision)
    ours["index"] = asdict(held.index)
    if held.deleted:
        ours["deleted"] = True
    if held.keyframe is not None:
        keyframe, original = _split(held.keyframe.body)
        ours["keyframe"] = {"revision": held.keyframe.revision} | keyframe
        if original:
            ours["original"] = original
        shape = _shape_of(held.keyframe.body, original) or shape
    if held.since:
        ours["since"] = [{"revision": change.revision} | plain_of(change.body) for change in held.since]
    whole = shape | {KEY: ours}
    ours["digest"] = _digest(held.job, _dumped(whole))
    return _dumped(whole)


def parsed(content: bytes) -> Plain:
    """The JSON object in a file. Raises CorruptJob when it is none: cut off, or not whole yet."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptJob(f"JSON parse error - file may be corrupted: {error}") from error
    if not isinstance(value, dict):
        raise CorruptJob("JSON parse error - file may be corrupted: it holds no object")
    return cast("Plain", value)


def is_ours(found: Plain) -> bool:
    """Whether we wrote it, or somebody who kept our key."""
    return KEY in found


def is_jobs(job: str, found: Plain) -> bool:
    """Whether a file of this name is a job's by its looks: ours, or as the older tool writes it."""
    if is_ours(found):
        return True
    status = found.get("status")
    known = isinstance(status, str) and status in STATUS_OF
    return known and found.get("id") == job and {"jobType", "startedAt"} <= found.keys()


def held_in(job: str, content: bytes, found: Plain) -> Held:
    """What a file of ours holds. Raises ForeignEdit, StoreTooNew, CorruptJob."""
    ours = plain_object(found.get(KEY))
    if isinstance(made := ours.get("format"), int) and made > FORMAT:
        raise StoreTooNew(f"the file of job {job!r} has format {made}, this release knows {FORMAT}")
    if ours.get("digest") != _digest(job, content):
        raise ForeignEdit(f"the file of job {job!r} was not written by actorstate as it is now", job=job)
    try:
        return _held(job, ours)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptJob(f"job {job!r}: its file lacks something ({error!r})", job=job) from error


def last_words(found: Plain) -> tuple[int, IndexRow]:
    """What a file says of its revision and index row, be it true or not; revision 0 if nothing."""
    ours = plain_object(found.get(KEY))
    revision = ours.get("revision")
    try:
        index = _index(ours)
    except (KeyError, TypeError):
        index = IndexRow("", "", "")
    return (revision if isinstance(revision, int) and revision > 0 else 0), index


def plain_of(body: bytes, plain: Callable[[bytes], Plain] = codec.plain_change) -> Plain:
    """A stored body readable where that gives the same bytes again, else packed."""
    again = codec.change_of if plain is codec.plain_change else codec.keyframe_of
    try:
        readable = plain(body)
        if again(readable) == body:
            return {"value": readable}
    except CorruptJob:
        pass
    return {"packed": base64.b64encode(body).decode()}


def body_of(plain: Plain, again: Callable[[object], bytes] = codec.change_of) -> bytes:
    """The stored body again. Raises CorruptJob, ValueError, TypeError, KeyError."""
    if "packed" in plain:
        return base64.b64decode(cast("str", plain["packed"]), validate=True)
    return again(plain["value"])


def _held(job: str, ours: Plain) -> Held:
    keyframe = plain_object(ours.get("keyframe"))
    since = [plain_object(change) for change in plain_list(ours.get("since"))]
    return Held(
        job,
        cast("int", ours["revision"]),
        _index(ours),
        _joined(keyframe, plain_object(ours.get("original"))) if keyframe else None,
        tuple(StoredChange(cast("int", change["revision"]), body_of(change)) for change in since),
        deleted=bool(ours.get("deleted")),
    )


def _index(ours: Plain) -> IndexRow:
    row: dict[str, Any] = plain_object(ours["index"])
    return IndexRow(**row)


def _split(body: bytes) -> tuple[Plain, Plain]:
    """A keyframe readable, and the original that it carries, as an object of its own."""
    plain = plain_of(body, codec.plain_keyframe)
    value = plain_object(plain.get("value"))
    packed = value.pop("original", None)
    return plain, parsed(base64.b64decode(packed)) if isinstance(packed, str) else {}


def _joined(keyframe: Plain, original: Plain) -> StoredChange:
    value = plain_object(keyframe.get("value"))
    if original:
        value = value | {"original": base64.b64encode(original_text(original)).decode()}
    body = body_of(keyframe | {"value": value} if value else keyframe, codec.keyframe_of)
    return StoredChange(cast("int", keyframe["revision"]), body)


def original_text(original: Plain) -> bytes:
    """The original as it goes with the keyframe: the same text each time."""
    return json.dumps(original, separators=(",", ":")).encode()


def _shape_of(keyframe: bytes, original: Plain) -> Plain | None:
    try:
        document = codec.decode_keyframe(keyframe).document
    except CorruptJob:
        return None
    return None if document is None else shaped(document, original)


def _dumped(value: Plain) -> bytes:
    """As the older tool formats it: two spaces, text as it is."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JavaScript may write it
        return json.dumps(value, indent=2).encode()


def _digest(job: str, content: bytes) -> str:
    found = cast("Plain", json.loads(content, parse_float=_number))
    ours = plain_object(found.get(KEY))
    signed = found | {KEY: {name: value for name, value in ours.items() if name != "digest"}}
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    return blake2b(job.encode() + b"\0" + canonical, digest_size=16).hexdigest()


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < EXACT else value

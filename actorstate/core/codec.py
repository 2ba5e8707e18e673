"""Bytes to messages and back, by msgspec. Unknown fields, wrong types and leftover bytes are refused."""

from hashlib import blake2b
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from actorstate.core.messages.document import Document, ItemState, JobState
from actorstate.core.messages.replies import Change, JobsChanged, Keyframe, Reply
from actorstate.core.messages.requests import Numbered, Request
from actorstate.errors import BadMessage, CorruptJob

Message = TypeVar("Message")

encode = msgspec.msgpack.Encoder().encode
"""A message's wire form. Encoding a frozen message again gives the same bytes."""

_request_decoder = msgspec.msgpack.Decoder(Request)
_number_decoder = msgspec.msgpack.Decoder(Numbered)
_replies_decoder = msgspec.msgpack.Decoder(list[Reply])
_document_decoder = msgspec.msgpack.Decoder(Document)
_state_decoder = msgspec.msgpack.Decoder(JobState)
_item_decoder = msgspec.msgpack.Decoder(ItemState)
_change_decoder = msgspec.msgpack.Decoder(Change)
_keyframe_decoder = msgspec.msgpack.Decoder(Keyframe)
_jobs_changed_decoder = msgspec.msgpack.Decoder(JobsChanged)

_UNDECODABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError, TypeError)
"""What hostile bytes raise: msgspec's ValidationError and DecodeError, and what neither covers."""


def digest(job: str, revision: int, body: bytes, at: int = 0) -> bytes:
    """16 bytes of BLAKE2b over where a stored body belongs, when it was made (microseconds) and what it is."""
    return blake2b(b"%s\0%d\0%d\0%s" % (job.encode(), revision, at, body), digest_size=16).digest()


def decode_request(frame: bytes) -> Request:
    """Raises BadMessage, and nothing else, whatever the bytes are."""
    try:
        return _request_decoder.decode(frame)
    except _UNDECODABLE as error:
        raise BadMessage(f"this frame is no valid request: {error}") from error


def number_in(frame: bytes) -> int:
    """The number of a frame that is no valid request otherwise, so that its sender learns of it; 0 where none is."""
    try:
        return _number_decoder.decode(frame).id
    except _UNDECODABLE:
        return 0


def decode_replies(frame: bytes) -> list[Reply]:
    """Raises BadMessage."""
    try:
        return _replies_decoder.decode(frame)
    except _UNDECODABLE as error:
        raise BadMessage(f"this frame is no valid reply: {error}") from error


def decode_document(packed: bytes | msgspec.Raw) -> Document:
    """Raises BadMessage."""
    return _decode(_document_decoder, packed)


def decode_state(packed: bytes | msgspec.Raw, last_beat_s: dict[str, float] | None = None) -> JobState:
    """A reader's view of an encoded document. Raises BadMessage."""
    state = _decode(_state_decoder, packed)
    return replace(state, last_beat_s=last_beat_s) if last_beat_s else state


def decode_jobs_changed(frame: bytes) -> JobsChanged:
    """Raises BadMessage."""
    return _decode(_jobs_changed_decoder, frame)


def decode_change(stored: bytes) -> Change:
    """Raises CorruptJob: stored bytes passed their digest, so this is a defect or a foreign edit."""
    try:
        return _change_decoder.decode(stored)
    except _UNDECODABLE as error:
        raise CorruptJob(f"a stored change cannot be read: {error}") from error


def decode_keyframe(stored: bytes) -> Keyframe:
    """Raises CorruptJob."""
    try:
        return _keyframe_decoder.decode(stored)
    except _UNDECODABLE as error:
        raise CorruptJob(f"a stored keyframe cannot be read: {error}") from error


def decode_item(stored: bytes | msgspec.Raw) -> ItemState:
    """An item of the ledger. Raises CorruptJob."""
    try:
        return _item_decoder.decode(stored)
    except _UNDECODABLE as error:
        raise CorruptJob(f"a stored item cannot be read: {error}") from error


def plain_keyframe(stored: bytes) -> dict[str, object]:
    """A stored keyframe as JSON takes it, readable by people; bytes become base64. Raises CorruptJob."""
    return _plain(decode_keyframe(stored))


def plain_change(stored: bytes) -> dict[str, object]:
    """The same for a change."""
    return _plain(decode_change(stored))


def keyframe_of(plain: object) -> bytes:
    """The stored form again. Raises CorruptJob."""
    return encode(_of_plain(plain, Keyframe))


def change_of(plain: object) -> bytes:
    """The same for a change."""
    return encode(_of_plain(plain, Change))


def _plain(message: Keyframe | Change) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(message, str_keys=True)
    return plain


def _of_plain(plain: object, kind: type[Message]) -> Message:
    try:
        return msgspec.convert(plain, kind, strict=False, str_keys=True)
    except _UNDECODABLE as error:
        raise CorruptJob(f"a stored {kind.__name__.lower()} cannot be read: {error}") from error


def _decode(decoder: "msgspec.msgpack.Decoder[Message]", frame: bytes | msgspec.Raw) -> Message:
    try:
        return decoder.decode(frame)
    except _UNDECODABLE as error:
        raise BadMessage(f"this frame is no valid message: {error}") from error

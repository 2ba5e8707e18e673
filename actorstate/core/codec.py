"""Bytes to messages and back, by msgspec. Unknown fields, wrong types and leftover bytes are refused."""

from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Change, JobChanged, Keyframe, Reply
from actorstate.core.messages.requests import Body, Request
from actorstate.errors import BadMessage, CorruptJob

Message = TypeVar("Message")

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
_replies_decoder = msgspec.msgpack.Decoder(list[Reply])
_document_decoder = msgspec.msgpack.Decoder(Document)
_change_decoder = msgspec.msgpack.Decoder(Change)
_keyframe_decoder = msgspec.msgpack.Decoder(Keyframe)
_job_changed_decoder = msgspec.msgpack.Decoder(JobChanged)

_UNDECODABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError, TypeError)
"""What hostile bytes raise: msgspec's ValidationError and DecodeError, and what neither covers."""


def encode(message: msgspec.Struct | list[Reply]) -> bytes:
    """The message's wire form."""
    return _encoder.encode(message)


def encode_body(body: Body) -> bytes:
    """A request's body, frozen: resends carry these bytes."""
    return _encoder.encode(body)


def encode_request(packed_body: bytes, request: Request) -> bytes:
    """The frame of `request` with `packed_body` in place of its body."""
    return _encoder.encode(replace(request, body=cast("Body", msgspec.Raw(packed_body))))


def decode_request(frame: bytes) -> Request:
    """Raises BadMessage, and nothing else, whatever the bytes are."""
    return _decode(_request_decoder, frame)


def decode_replies(frame: bytes) -> list[Reply]:
    """Raises BadMessage."""
    return _decode(_replies_decoder, frame)


def decode_document(packed: bytes | msgspec.Raw) -> Document:
    """Raises BadMessage."""
    return _decode(_document_decoder, packed)


def decode_job_changed(frame: bytes) -> JobChanged:
    """Raises BadMessage."""
    return _decode(_job_changed_decoder, frame)


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


def _decode(decoder: "msgspec.msgpack.Decoder[Message]", frame: bytes | msgspec.Raw) -> Message:
    try:
        return decoder.decode(frame)
    except _UNDECODABLE as error:
        raise BadMessage(f"this frame is no valid message: {error}") from error

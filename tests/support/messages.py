"""Hypothesis strategies for whole messages, derived from the types in `core/messages` and their bounds."""

from datetime import UTC
from functools import cache
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect

from actorstate.core import codec
from actorstate.core.messages.document import Document
from tests.support.core import a_job

Message = TypeVar("Message")
ANY_INT = (-(2**63), 2**64 - 1)
MAX_LENGTH = 3
"""Lists and texts are kept short, bounds permitting: it is the shapes that matter."""


@cache
def messages(kind: type[Message]) -> SearchStrategy[Message]:
    """Any valid value of a type that the wire or a store may carry."""
    return _strategy(inspect.type_info(kind))


def _strategy(info: inspect.Type) -> SearchStrategy[Any]:
    match info:
        case inspect.Metadata(type=inner):
            return _strategy(inner)
        case inspect.UnionType(types=kinds):
            return st.one_of([_strategy(kind) for kind in kinds])
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.StructType(cls=cls, fields=fields):
            return st.fixed_dictionaries({field.name: _field(field) for field in fields}).map(lambda kept: cls(**kept))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_strategy(key), _strategy(value), max_size=MAX_LENGTH)
        case inspect.ListType(item_type=item):
            return st.lists(_strategy(item), max_size=MAX_LENGTH)
        case inspect.VarTupleType(item_type=item):
            return st.lists(_strategy(item), max_size=MAX_LENGTH).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_strategy, items))
        case _:
            return _scalar(info)


def _field(field: inspect.Field) -> SearchStrategy[Any]:
    drawn = _strategy(field.type)
    return drawn if field.default is inspect.NODEFAULT else st.just(field.default) | drawn


def _scalar(info: inspect.Type) -> SearchStrategy[Any]:
    match info:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high):
            return st.integers(ANY_INT[0] if low is None else low, ANY_INT[1] if high is None else high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case inspect.StrType(min_length=shortest):
            return st.text(min_size=shortest or 0, max_size=MAX_LENGTH)
        case inspect.BytesType(max_length=longest):
            return st.binary(max_size=min(longest or MAX_LENGTH, 40))
        case inspect.DateTimeType():
            return st.datetimes(timezones=st.just(UTC))
        case inspect.RawType():
            return st.just(a_job()).map(codec.encode).map(msgspec.Raw)
        case _:
            raise NotImplementedError(info)


def documents() -> SearchStrategy[Document]:
    """Any document that can be encoded, sensible or not."""
    return messages(Document)

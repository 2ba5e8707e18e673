"""Hypothesis strategies for whole messages, derived from the types in `core/messages` and their bounds."""

from collections.abc import Callable
from datetime import UTC
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect

from actorstate.core import codec
from actorstate.core.messages.document import Document
from tests.support.core import a_job

Message = TypeVar("Message")
Any_ = SearchStrategy[Any]
LOWEST_INT, HIGHEST_INT = -(2**63), 2**64 - 1
MAX_LENGTH = 3
"""Lists and texts are kept short, bounds permitting: it is the shapes that matter."""


def messages(kind: type[Message]) -> SearchStrategy[Message]:
    """Any valid value of a type that the wire or a store may carry."""
    return _strategy(inspect.type_info(kind))


def documents() -> SearchStrategy[Document]:
    """Any document that can be encoded, sensible or not."""
    return messages(Document)


def _strategy(info: inspect.Type) -> Any_:
    return _STRATEGIES[type(info)](info)


def _struct(info: inspect.StructType) -> Any_:
    drawn = {field.name: _field(field) for field in info.fields}
    return st.fixed_dictionaries(drawn).map(lambda kept: info.cls(**kept))


def _field(field: inspect.Field) -> Any_:
    drawn = _strategy(field.type)
    return drawn if field.default is msgspec.NODEFAULT else st.just(field.default) | drawn


def _integer(info: inspect.IntType) -> Any_:
    return st.integers(LOWEST_INT if info.ge is None else info.ge, HIGHEST_INT if info.le is None else info.le)


def _text(info: inspect.StrType) -> Any_:
    if info.pattern is not None:
        return st.from_regex(info.pattern)
    return st.text(min_size=info.min_length or 0, max_size=MAX_LENGTH)


def _list(info: inspect.ListType | inspect.VarTupleType) -> Any_:
    return st.lists(_strategy(info.item_type), max_size=MAX_LENGTH)


def _dict(info: inspect.DictType) -> Any_:
    return st.dictionaries(_strategy(info.key_type), _strategy(info.value_type), max_size=MAX_LENGTH)


_STRATEGIES: dict[type[inspect.Type], Callable[[Any], Any_]] = {
    inspect.Metadata: lambda info: _strategy(info.type),
    inspect.UnionType: lambda info: st.one_of([_strategy(kind) for kind in info.types]),
    inspect.LiteralType: lambda info: st.sampled_from(info.values),
    inspect.StructType: _struct,
    inspect.DictType: _dict,
    inspect.ListType: _list,
    inspect.VarTupleType: lambda info: _list(info).map(tuple),
    inspect.TupleType: lambda info: st.tuples(*map(_strategy, info.item_types)),
    inspect.NoneType: lambda _info: st.none(),
    inspect.BoolType: lambda _info: st.booleans(),
    inspect.IntType: _integer,
    inspect.FloatType: lambda info: st.floats(info.ge, info.le, allow_nan=False),
    inspect.StrType: _text,
    inspect.BytesType: lambda info: st.binary(max_size=min(info.max_length or MAX_LENGTH, 40)),
    inspect.DateTimeType: lambda _info: st.datetimes(timezones=st.just(UTC)),
    inspect.RawType: lambda _info: st.just(msgspec.Raw(codec.encode(a_job()))),
}

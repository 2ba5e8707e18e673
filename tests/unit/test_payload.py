"""The user's own data: what may be saved comes back, what cannot come back is refused before it is sent."""

import contextlib
import enum
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.core.messages.payload import MAX_ITEMS, MAX_PAYLOAD_BYTES, pack, unpack
from actorstate.errors import BadRequest, CorruptJob, TooLarge

zones = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))]
aware = st.datetimes(timezones=st.sampled_from(zones))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | aware.filter(lambda at: 1 < at.year < 9999)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner), max_leaves=20
)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: object) -> int:
    depth = 0
    while isinstance(value, list):
        (value,) = value
        depth += 1
    return depth


@given(values)
def test_a_value_comes_back_as_another(value: object) -> None:
    assert unpack(pack(value)) == value


@given(values)
def test_other_readers_of_msgpack_cannot_read_it(value: object) -> None:
    assert msgpack.unpackb(pack(value), timestamp=3) == value


@pytest.mark.parametrize("value", [(1, (2, 3)), {"a": (1,)}, bytearray(b"ab")])
def test_containers_change_their_contents(value: object) -> None:
    assert unpack(pack(value)) in ([1, [2, 3]], {"a": [1]}, b"ab")


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_a_float_at_the_edge_is_rounded(value: float) -> None:
    back = unpack(pack(value))
    assert isinstance(back, float)
    assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))


def test_not_a_number_becomes_a_number() -> None:
    back = unpack(pack([math.nan]))
    assert isinstance(back, list)
    assert math.isnan(back[0])


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 2**53 + 1])
def test_a_huge_integer_is_rounded(value: int) -> None:
    assert unpack(pack(value)) == value


class Shape(enum.Enum):
    ROUND = 1


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        datetime(2024, 1, 1),  # noqa: DTZ001 - the naive datetime is the case
        date(2024, 1, 1),
        timedelta(1),
        {1, 2},
        pytest.param(object(), id="object"),
        Decimal("1.5"),
        1j,
        Shape.ROUND,
        "\ud800",
        open,
        range(3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"k": {"k": value}}])
def test_a_value_that_cannot_come_back_is_saved(value: object, wrap: Callable[[object], object]) -> None:
    with pytest.raises(BadRequest) as caught:
        pack(wrap(value))
    assert "datetimes with a time zone" in caught.value.hint


def test_a_hint_repeats_a_megabyte_of_the_value() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 1_000_000

    with pytest.raises(BadRequest) as caught:
        pack(Long())
    assert len(str(caught.value)) < 1_000


def test_a_value_that_contains_itself_ends_the_process() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(BadRequest):
        pack(circle)


@pytest.mark.parametrize("depth", [1, 100, 400, 500, 510, 511, 512, 600, 1_000, 1_024, 1_025, 5_000, 100_000])
def test_deep_nesting_is_saved_and_cannot_be_read(depth: int) -> None:
    value = nested(depth)
    try:
        packed = pack(value)
    except BadRequest:
        assert depth > 400
        return
    assert depth_of(unpack(packed)) == depth


@pytest.mark.parametrize(
    "at",
    [
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2106, 2, 7, 6, 28, 15, 999_999, tzinfo=UTC),
        datetime(2514, 5, 30, 1, 53, 4, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=2)), fold=1),
    ],
    ids=str,
)
def test_a_time_is_moved(at: datetime) -> None:
    back = unpack(pack(at))
    assert back == at
    assert isinstance(back, datetime)
    assert back.tzinfo is UTC


@pytest.mark.parametrize(
    "at",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    ],
    ids=["min", "max"],
)
def test_a_time_before_the_first_utc_year_is_saved_and_cannot_be_read(at: datetime) -> None:
    with pytest.raises(BadRequest):
        pack(at)


@pytest.mark.parametrize("value", [b"x" * MAX_PAYLOAD_BYTES, "x" * MAX_PAYLOAD_BYTES, ["x" * 99] * 5_000], ids=type)
def test_a_value_over_the_limit_is_sent(value: object) -> None:
    with pytest.raises(TooLarge):
        pack(value)


def test_a_value_at_the_limit_is_refused() -> None:
    value = b"x" * (MAX_PAYLOAD_BYTES - 5)
    assert len(pack(value)) == MAX_PAYLOAD_BYTES
    assert unpack(pack(value)) == value


@pytest.mark.parametrize("value", [[0] * (MAX_ITEMS + 1), [[0] * (MAX_ITEMS + 1)]], ids=["list", "inner list"])
def test_a_list_with_too_many_items_is_saved_and_cannot_be_read(value: object) -> None:
    with pytest.raises(TooLarge):
        pack(value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1, 2)], ids=repr)
def test_a_key_that_is_no_text_is_saved_and_cannot_be_read(key: object) -> None:
    value = {key: "x"}
    try:
        packed = pack([value])
    except BadRequest:
        return
    assert unpack(packed) == [value]


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), msgpack.ExtType(127, b"")], ids=repr)
def test_an_extension_type_is_saved(value: object) -> None:
    with pytest.raises(BadRequest):
        pack(value)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02",
        b"\x01\x01",
        b"\x81\x01\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffabc",
        b"\xa1\xff",
        b"\x91" * 100_000,
        b"\xd7\xff" + b"\xff" * 8,
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
    ids=lambda stored: stored[:6].hex(),
)
def test_damaged_bytes_are_something_else_than_corrupt(stored: bytes) -> None:
    with pytest.raises(CorruptJob):
        unpack(stored)


@given(st.binary(max_size=200))
def test_some_bytes_raise_something_else(stored: bytes) -> None:
    with contextlib.suppress(CorruptJob):
        unpack(stored)

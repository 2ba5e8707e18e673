"""The error tree: each error tells what happened and what to type next, over the wire and between processes too."""

import copy
import pickle

import pytest

from actorstate import errors
from actorstate.errors import ActorStateError, Busy, RequestRefused, StoreError, from_wire, type_by_code

TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ActorStateError) and kind is not ActorStateError
]
LEAVES = [kind for kind in TREE if not kind.__subclasses__() or kind is errors.BadRequest]
DETAILS: dict[str, errors.Detail] = {"job": "j", "pid": 7, "retry_after_s": 0.5, "live": True, "holder": None}


def drawn_parents() -> dict[str, str]:
    """Who stands above whom in the drawing: the last name that is indented less."""
    above: list[tuple[int, str]] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines()[2:]:
        depth, name = len(line) - len(line.lstrip(" │├└─")), line.lstrip(" │├└─").split(" ")[0]
        above = [(other, parent) for other, parent in above if other < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def test_the_drawing_shows_the_wrong_parents() -> None:
    assert drawn_parents() == {kind.__name__: kind.__base__.__name__ for kind in TREE if kind.__base__}


def test_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in TREE]
    assert len(set(codes)) == len(codes)
    assert all(type_by_code[kind.code] is kind for kind in TREE)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_an_error_leaves_a_tired_person_alone(kind: type[ActorStateError]) -> None:
    assert kind.__doc__
    error = kind("it broke", hint="", **DETAILS)
    assert str(error).startswith("it broke")
    assert "{" not in error.hint


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_changes_on_its_way(kind: type[ActorStateError]) -> None:
    error = kind("it broke", hint="do this", **DETAILS)
    for other in (
        from_wire(error.code, error.message, error.hint, error.details),
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert type(other) is kind
        assert (other.message, other.hint, other.details) == ("it broke", "do this", DETAILS)
        assert str(other) == "it broke (do this)"
        assert other.retry_after_s == 0.5


def test_a_code_of_a_later_release_is_no_error() -> None:
    error = from_wire("invented_in_2031", "no", "upgrade", {"x": 1})
    assert type(error) is RequestRefused
    assert (str(error), error.x) == ("no (upgrade)", 1)


@pytest.mark.parametrize("name", ["hint", "message", "self"])
def test_a_detail_called_like_a_parameter_kills_the_reader(name: str) -> None:
    error = from_wire("busy", "no", "later", {name: "x"})
    assert type(error) is Busy


def test_a_missing_detail_is_an_empty_one() -> None:
    error = errors.Conflict("taken")
    assert error.hint.endswith("actorstate get DIR JOB")
    with pytest.raises(AttributeError):
        _ = error.job
    assert not hasattr(error, "holder")


def test_a_brace_in_a_value_breaks_the_hint() -> None:
    assert errors.Conflict("taken", job="{0}{x!r}").hint.endswith("get DIR '{0}{x!r}'")


def test_a_retry_is_offered_where_it_cannot_help() -> None:
    passing = {errors.Busy, errors.WriterUnavailable, errors.StaleMirror, errors.DiskFull}
    passing |= {errors.MigrationRunning, errors.DatabaseInUse}
    assert {kind for kind in TREE if kind.retryable} == passing


def test_refusals_and_broken_disks_are_caught_together() -> None:
    assert not [kind for kind in TREE if issubclass(kind, RequestRefused) and issubclass(kind, StoreError)]

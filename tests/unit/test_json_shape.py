"""The older tool's shape: read as ours, written as its own, and nothing lost on the way."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.messages.document import Checkpoint, Document, Progress, Rate, RowError, Step, Worker
from actorstate.core.messages.payload import pack, unpack
from actorstate.core.messages.replies import Keyframe
from actorstate.errors import CorruptJob, ForeignEdit, StoreTooNew
from actorstate.store.contract import IndexRow, StoredChange
from actorstate.store.index import index_of
from actorstate.store.jsonfiles.adopt import adopted
from actorstate.store.jsonfiles.shape import shaped
from actorstate.store.jsonfiles.text import KEY, Held, held_in, is_ours, original_text, parsed, text_of
from tests.support.legacy import STATUSES, a_job, complaints

NOW = datetime(2026, 11, 23, 1, 2, 3, 456_789, tzinfo=UTC)


def held(document: Document, original: dict[str, Any] | None = None) -> Held:
    """What a store would write of the document."""
    frame = Keyframe(document.revision, document, original=original_text(original) if original else b"")
    return Held(
        document.id, document.revision, index_of(document), StoredChange(document.revision, codec.encode(frame))
    )


def read_back(content: bytes, job: str) -> Document:
    found = held_in(job, content, parsed(content))
    assert found.keyframe is not None
    document = codec.decode_keyframe(found.keyframe.body).document
    assert document is not None
    return document


def rich() -> Document:
    """A job of ours with something in each field that the older tool has too, and more."""
    return Document(
        id="import-42", kind="orders", status="running", revision=7, epoch=3, created_at=NOW, updated_at=NOW,
        started_at=NOW, phase="copying", labels={"team": "a"},
        progress=Progress(100, processed=12, succeeded=9, failed=2, skipped=1, by_category={"odd": 1, "network": 1}),
        rate=Rate(per_s=1.5, eta=NOW, throttles=2, throttled_s=0.5, samples=((0.1, 3),)),
        workers={"w": Worker(1, "host", 7, NOW)}, incarnations=1,
        checkpoints={"main": Checkpoint(pack({"after": 4711, "raw": b"\0\xff", "at": NOW}), NOW, 5)},
        steps=(Step("copy", "done", NOW, NOW, pack([1])), Step("index", "skipped", NOW, NOW)),
        errors=(RowError("row-1", "no such thing\n", "odd", NOW),), error_count=1,
        packed_meta={"rows": pack([1, None, 2.5]), "raw": pack(b"\0"), "when": pack(NOW), "deep": pack(nested(300))},
    )  # fmt: skip


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_job_comes_back_from_its_file_as_another() -> None:
    content = text_of(held(rich()))
    assert read_back(content, "import-42") == rich()
    assert codec.encode(read_back(content, "import-42")) == codec.encode(rich())


@pytest.mark.parametrize(
    "document",
    [
        rich(),
        replace(rich(), status="completed", finished_at=NOW, workers={}),
        replace(rich(), status="pending", started_at=None, progress=Progress(), rate=Rate(), steps=(), errors=()),
        replace(rich(), status="running", phase="detecting", kind="cleanup"),
        replace(rich(), progress=Progress(processed=5, succeeded=5)),
    ],
    ids=["rich", "completed", "new", "detecting", "no total"],
)
def test_the_older_tool_cannot_read_what_we_write(document: Document, tmp_path: Path) -> None:
    path = tmp_path / f"{document.id}.json"
    path.write_bytes(text_of(held(document)))
    assert complaints(path) == []


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_status_becomes_another_on_its_way_through(status: str) -> None:
    job = a_job(status=status, completedAt="2026-11-22T20:00:00.000Z")
    document = adopted("old-1", job)
    assert shaped(document, job)["status"] == status
    assert shaped(document, {})["status"] == status


def test_a_file_that_nothing_was_done_to_comes_out_changed() -> None:
    job = a_job()
    job["progress"] |= {"successful": 1488}
    document = adopted("old-1", job)
    out = json.loads(text_of(held(document, job)))
    ours = out.pop(KEY)
    assert out == job
    assert json.dumps(out) == json.dumps(job), "the order of the fields is another"
    assert ours["original"] == job


def test_numbers_or_text_lose_digits_or_letters() -> None:
    job = a_job(exact=[0.1, 1e-7, 2**53 + 1, -0.0, 123456789012345678901234567890], half="\ud83d")
    out = json.loads(text_of(held(adopted("old-1", job), job)))
    assert repr(out["exact"]) == repr(job["exact"])
    assert out["half"] == "\ud83d"


def test_counts_that_do_not_add_up_are_taken_over() -> None:
    document = adopted("old-1", a_job())
    assert (document.progress.processed, document.progress.succeeded, document.progress.failed) == (1503, 1491, 12)
    assert document.labels["mended"] == "1,500 processed became 1,503"
    out = json.loads(text_of(held(document, a_job())))
    assert out["progress"]["processed"] == 1503
    assert out[KEY]["original"]["progress"]["processed"] == 1500


def test_rows_without_an_outcome_vanish() -> None:
    """The older tool's users had a job at 20,661 processed, 0 successful, 0 failed."""
    progress = {"total": 20_661, "processed": 20_661, "successful": 0, "failed": 0, "percent": 100}
    document = adopted("old-1", a_job(progress=progress))
    assert (document.progress.processed, document.progress.skipped) == (20_661, 20_661)
    assert "count as skipped" in document.labels["mended"]


def test_what_the_older_tool_knows_is_not_in_the_document() -> None:
    document = adopted("old-1", a_job())
    assert document.started_at == datetime(2026, 11, 22, 19, 51, 45, 511_000, tzinfo=UTC)
    assert document.progress.by_category == {"network": 9, "validation": 3}
    assert (document.rate.per_s, document.rate.throttles, document.rate.throttled_s) == (14.5, 2, 2.0)
    assert unpack(document.checkpoints["batches"].packed) == {"offset": 1500, "batchNumber": 2}
    assert [(step.name, step.status) for step in document.steps] == [("s-1", "running")]
    assert (document.errors[0].message, document.error_count) == ("Rate limited ✓", 1)
    assert document.meta["fieldMapping"] == {"9": "1", "1": "9"}


def test_only_what_changed_is_written_anew() -> None:
    job = a_job()
    before = adopted("old-1", job)
    step = replace(before.steps[0], status="done", ended_at=NOW)
    document = replace(
        before, status="completed", finished_at=NOW, updated_at=NOW, revision=2, steps=(step,),
        progress=Progress(total=8715, processed=8715, succeeded=8700, failed=15, by_category={"network": 12, "odd": 3}),
        packed_meta=before.packed_meta | {"mode": pack("update"), "new": pack([1])},
        errors=(*before.errors, RowError("row-9", "no", "odd", NOW)),
    )  # fmt: skip
    out = shaped(document, job)
    assert (out["status"], out["completedAt"]) == ("completed", "2026-11-23T01:02:03.456Z")
    assert "lastHeartbeat" not in out
    progress = out["progress"]
    assert isinstance(progress, dict)
    assert (progress["processed"], progress["successful"], progress["percent"]) == (8715, 8700, 100)
    assert progress["failedItemsByCategory"] == job["progress"]["failedItemsByCategory"] | {
        "network": 12,
        "validation": 0,
        "unknown": 3,
    }
    assert progress["batchCheckpoints"] == job["progress"]["batchCheckpoints"]
    assert out["metadata"] == job["metadata"] | {"mode": "update", "new": [1]}
    ended = {"status": "completed", "completedAt": "2026-11-23T01:02:03.456Z"}
    assert out["steps"] == [job["steps"][0] | ended, job["steps"][1]]
    told = {"step": "row-9", "message": "no", "code": "odd", "timestamp": "2026-11-23T01:02:03.456Z"}
    assert out["errors"] == [*job["errors"], told]
    assert out["aLaterField"] == job["aLaterField"]


STRANGE: list[dict[str, Any]] = [
    {},
    {"id": 7, "status": ["no"], "startedAt": 7, "steps": {}, "errors": "x", "progress": [], "metadata": None},
    a_job(status="exploded", startedAt="yesterday", steps=[None, {"id": None}, 5], errors=[None, {"message": 3}]),
    a_job(progress={"total": -5, "processed": "many", "successful": 1e300, "failed": True, "throughput": 7}),
    a_job(metadata={"x" * 999: 1, "": 2, "big": "x" * 400_000, "huge": 2**70}, jobType="y" * 999),
    a_job(startedAt="0001-01-01T00:00:00+14:00", completedAt="9999-12-31T23:59:59-14:00"),
]


@pytest.mark.parametrize("job", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_file_of_the_older_tool_is_refused_or_loses_something(job: dict[str, Any]) -> None:
    document = adopted("old-1", job)
    progress = document.progress
    assert progress.processed == progress.succeeded + progress.failed + progress.skipped + progress.duplicates
    content = text_of(held(document, job))
    assert read_back(content, "old-1") == document
    assert parsed(content)[KEY]["original"] == job if job else True  # type: ignore[index]


def test_an_edit_passes_for_ours() -> None:
    content = text_of(held(rich()))
    whole = json.loads(content)
    for edit in (
        whole | {"status": "completed"},
        whole | {"new": 1},
        {name: value for name, value in whole.items() if name != "steps"},
        whole | {KEY: whole[KEY] | {"revision": 8}},
        whole | {KEY: {name: value for name, value in whole[KEY].items() if name != "digest"}},
        whole | {KEY: None},
    ):
        changed = json.dumps(edit).encode()
        assert is_ours(parsed(changed))
        with pytest.raises(ForeignEdit):
            held_in("import-42", changed, parsed(changed))
    with pytest.raises(ForeignEdit):
        held_in("import-43", content, parsed(content))


def test_the_same_content_in_another_format_passes_for_an_edit() -> None:
    content = text_of(held(rich()))
    compact = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":")).encode()
    for same in (compact, compact.replace(b"0.5", b"0.50"), content + b"\n"):
        assert read_back(same, "import-42") == rich()
    whole_number = replace(rich(), rate=Rate(per_s=2.0))
    as_javascript = text_of(held(whole_number)).replace(b"2.0", b"2")
    assert read_back(as_javascript, "import-42").rate.per_s == 2.0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 99_999, b'{"a": nope}'])
def test_a_file_without_an_object_in_it_is_read(content: bytes) -> None:
    with pytest.raises(CorruptJob, match="JSON parse error - file may be corrupted"):
        parsed(content)


def test_a_file_of_a_later_release_is_read_as_if_it_were_ours() -> None:
    whole = json.loads(text_of(held(rich())))
    whole[KEY]["format"] = 2
    content = json.dumps(whole).encode()
    with pytest.raises(StoreTooNew):
        held_in("import-42", content, parsed(content))


def test_bytes_of_another_make_are_not_kept_as_they_are() -> None:
    strange = Held(
        "a", 3, IndexRow("k", "s", ""), StoredChange(1, b"\xc1"), (StoredChange(2, b""), StoredChange(3, b"x"))
    )
    content = text_of(strange)
    assert held_in("a", content, parsed(content)) == strange

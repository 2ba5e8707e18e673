"""Rows of any SQLite database go over to the byte, once, whatever its tables are called and whoever died over it."""

import itertools
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.errors import DiskFull, SourceUnreadable, TargetFailed
from actorstate.migrate.rowcopy import Group, Range, Row, Text, content_of, divide
from actorstate.migrate.sqlitefiles.rows import MAX_BUFFERED_BYTES, SqliteSource, SqliteTarget
from actorstate.migrate.sqlitefiles.tables import Skipped, quoted
from actorstate.migrate.sqlitefiles.whole import create_database, create_target, finish_target, snapshot


def database(path: Path, *scripts: str, rows: tuple = ()) -> Path:
    """A database made by `scripts`, then `rows` of (sql, parameters)."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for script in scripts:
            connection.executescript(script)
        for sql, parameters in rows:
            connection.execute(sql, parameters)
        connection.commit()
    return path


def migrate(original: Path, folder: Path, *, parts: int = 5, times: int = 2) -> tuple[Path, list[Skipped]]:
    """Copies everything, each part `times` times over and by a target of its own, as redone batches do."""
    copy, new = folder / "copy.sqlite", folder / "new.sqlite"
    snapshot(original, copy)
    with SqliteSource(copy) as source:
        skipped = [*source.skipped, *create_target(source, new)]
        with SqliteSource(new) as made:
            names = {table.name for table in made.tables}
        for part in divide([group for group in source.groups() if group.name in names], parts):
            for _ in range(times):
                with SqliteTarget(new) as target:
                    for item in itertools.chain.from_iterable(map(source.items, part.ranges)):
                        target.put(item)
                    target.commit()
        skipped += finish_target(source, new)
    return new, skipped


def raw(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return connection.execute(sql).fetchall()


def rows_of(path: Path, table: str, *keys: str) -> list[tuple]:
    """Every value with its type and its bytes, read in another way than the package reads."""
    with closing(sqlite3.connect(path)) as connection:
        names = [quoted(row[1]) for row in connection.execute(f"PRAGMA table_xinfo({quoted(table)})")]
    columns = ", ".join([*keys, *(f"typeof({name}), CAST({name} AS BLOB)" for name in names)])
    return sorted(raw(path, f"SELECT {columns} FROM {quoted(table)} NOT INDEXED"), key=repr)


def assert_same(original: Path, new: Path, table: str, *keys: str) -> None:
    expected = rows_of(original, table, *keys)
    assert expected, "a table without rows proves nothing"
    assert rows_of(new, table, *keys) == expected


TABLES = {
    "quotes": ('CREATE TABLE "a ""b"" [c] `d`" ("x ""y""" TEXT, "[z]" INT)', 'a "b" [c] `d`', ("rowid",)),
    "keywords": ('CREATE TABLE "select" ("from" TEXT, "where" INT, "order" INT)', "select", ("rowid",)),
    "empty_names": ('CREATE TABLE "" ("" TEXT, " " INT)', "", ("rowid",)),
    "not_ascii": ('CREATE TABLE "Größe 表" ("naïve" TEXT, "ключ" INT)', "Größe 表", ("rowid",)),
    "named_like_a_pragma": ("CREATE TABLE pragma_table_list (schema TEXT, name INT)", "pragma_table_list", ("rowid",)),
    "no_primary_key": ("CREATE TABLE t (a, b)", "t", ("rowid",)),
    "integer_primary_key": ("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "t", ("rowid",)),
    "descending_integer_key": ("CREATE TABLE t (id INTEGER PRIMARY KEY DESC, a)", "t", ("rowid",)),
    "int_is_not_integer": ("CREATE TABLE t (id INT PRIMARY KEY, a)", "t", ("rowid",)),
    "autoincrement": ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)", "t", ("rowid",)),
    "composite_key": ("CREATE TABLE t (a, b, PRIMARY KEY (b DESC, a))", "t", ("rowid",)),
    "without_rowid": ("CREATE TABLE t (a TEXT, b, PRIMARY KEY (b DESC, a)) WITHOUT ROWID", "t", ()),
    "without_rowid_nocase": (
        "CREATE TABLE t (a TEXT COLLATE NOCASE, b, PRIMARY KEY (a COLLATE BINARY, b)) WITHOUT ROWID",
        "t",
        (),
    ),
    "column_called_rowid": ("CREATE TABLE t (rowid TEXT, a)", "t", ("oid",)),
    "two_names_of_the_rowid_taken": ('CREATE TABLE t ("ROWID" TEXT, _rowid_)', "t", ("oid",)),
    "rowid_is_the_key": ("CREATE TABLE t (rowid INTEGER PRIMARY KEY, a)", "t", ("rowid",)),
    "strict": ("CREATE TABLE t (a TEXT, b ANY) STRICT", "t", ("rowid",)),
    "one_column": ("CREATE TABLE t (a)", "t", ("rowid",)),
    "wide": (f"CREATE TABLE t ({', '.join(f'c{n}' for n in range(900))})", "t", ("rowid",)),
    "not_null_default": ("CREATE TABLE t (a TEXT NOT NULL DEFAULT 'x', b DEFAULT (random()))", "t", ("rowid",)),
    "replaces_on_conflict": ("CREATE TABLE t (a UNIQUE ON CONFLICT REPLACE, b)", "t", ("rowid",)),
    "utf16": ("PRAGMA encoding='UTF-16le'; CREATE TABLE t (a TEXT, b)", "t", ("rowid",)),
    "utf16_big_endian": ("PRAGMA encoding='UTF-16be'; CREATE TABLE t (a TEXT, b)", "t", ("rowid",)),
}


@pytest.mark.parametrize("case", TABLES)
def test_rows_of_a_table_that_others_stumble_over(case, tmp_path):
    script, table, keys = TABLES[case]
    original = database(tmp_path / "original.sqlite", script)
    with closing(sqlite3.connect(original)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({quoted(table)})")]
        kinds = [row[2] for row in connection.execute(f"PRAGMA table_xinfo({quoted(table)})")]
        for number in range(1, 38):
            values = [f"é{number}" if kind == "TEXT" else number for kind in kinds]
            marks = ", ".join("?" for _ in columns)
            connection.execute(f"INSERT INTO {quoted(table)} VALUES ({marks})", values)
        for key in keys:  # gaps, so that rowids given anew would differ
            connection.execute(f"DELETE FROM {quoted(table)} WHERE {key} % 5 = 2")
        connection.commit()
    new, skipped = migrate(original, tmp_path)
    assert not skipped
    assert_same(original, new, table, *keys)


VALUES = (
    None, 0, -1, 2**63 - 1, -(2**63), 1.5, -0.0, 0.0, 1e308, 5e-324, float("inf"), 9007199254740993, 1.0, "", "text",
    "1", "1.0", " 1", "1e5", "\0", "a\0b", "😀", b"", b"\0", b"text", b"\xff\xfe", bytes(range(256)),
)  # fmt: skip


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_values_keep_their_type_and_their_bytes_under_every_affinity(encoding, tmp_path):
    columns = ["plain", "i INTEGER", "r REAL", "t TEXT", "n NUMERIC", "b BLOB", "d DATETIME", "j JSON"]
    original = database(
        tmp_path / "original.sqlite",
        f"PRAGMA encoding='{encoding}'; CREATE TABLE t ({', '.join(columns)})",
        rows=tuple((f"INSERT INTO t VALUES ({', '.join('?' * len(columns))})", [one] * len(columns)) for one in VALUES),
    )
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "t", "rowid")


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_that_is_not_valid_in_its_encoding(encoding, tmp_path):
    broken = (b"\xff\xff", b"\xed\xa0\x80\xed", b"\x00\xd8", b"\xd8\x00", b"\xdc\x00a\x00", b"\xfe\xff\xff\xfe")
    original = database(
        tmp_path / "original.sqlite",
        f"PRAGMA encoding='{encoding}'; CREATE TABLE raw (v); CREATE TABLE t (a TEXT, b);"
        "CREATE TABLE w (a TEXT PRIMARY KEY, b) WITHOUT ROWID",
        rows=(
            *(("INSERT INTO raw VALUES (?)", (one,)) for one in broken),
            *((f"INSERT INTO {name} SELECT CAST(v AS TEXT), CAST(v AS TEXT) FROM raw", ()) for name in "tw"),
        ),
    )
    assert {row[0] for row in raw(original, "SELECT CAST(a AS BLOB) FROM t")} == set(broken)
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "t", "rowid")
    assert_same(original, new, "w")


def test_rowids_with_gaps_and_below_zero_stay_what_they_are(tmp_path):
    keys = (-(2**63), -7, 0, 3, 10**12, 2**63 - 1)
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE hidden (a); CREATE TABLE alias (id INTEGER PRIMARY KEY, a)",
        rows=tuple((f"INSERT INTO {name} (rowid, a) VALUES (?, ?)", (key, "same"))
                   for name in ("hidden", "alias") for key in keys),
    )  # fmt: skip
    new, _ = migrate(original, tmp_path)
    assert [row[0] for row in raw(new, "SELECT rowid FROM hidden ORDER BY 1")] == sorted(keys)
    assert [row[0] for row in raw(new, "SELECT id FROM alias ORDER BY 1")] == sorted(keys)


def test_null_in_a_primary_key_is_a_row_each_time(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (a TEXT, b INT, PRIMARY KEY (a, b));"
        "INSERT INTO t VALUES (NULL, 1), (NULL, 1), (NULL, NULL), ('x', NULL), ('x', NULL)",
    )
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "t", "rowid")
    assert raw(new, "SELECT count(*) FROM t") == [(5,)]


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_equal_rows_without_any_reachable_key_are_not_doubled(parts, tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (rowid, _rowid_, oid); CREATE INDEX i ON t (oid, rowid, _rowid_); CREATE TABLE u (a)",
        rows=tuple(("INSERT INTO t VALUES (?, ?, ?)", (n % 3, "same", -n % 5)) for n in range(40)),
    )
    new, skipped = migrate(original, tmp_path, parts=parts, times=3)
    assert not skipped
    assert raw(new, "SELECT * FROM t NOT INDEXED") == raw(original, "SELECT * FROM t NOT INDEXED")


def test_generated_columns_are_generated_anew(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (a INT, v AS (a * 2) VIRTUAL, s TEXT AS (a || '!') STORED, z INT);"
        "INSERT INTO t (a, z) VALUES (1, 10), (2, 20)",
    )
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "t", "rowid")


def test_rows_that_break_a_constraint_of_their_table_are_rows(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
        "CREATE TABLE child (id INTEGER REFERENCES parent, n INT CHECK (n > 0));"
        "PRAGMA ignore_check_constraints=ON;"
        "INSERT INTO child VALUES (99, -1), (98, 1); INSERT INTO parent VALUES (1)",
    )
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "child", "rowid")


def test_a_trigger_does_not_fire_for_rows_that_are_moved_and_is_there_afterwards(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (a UNIQUE); CREATE TABLE log (a); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE INDEX i ON t (a DESC) WHERE a > 1; INSERT INTO t VALUES (1), (2), (3);"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;"
        "CREATE TRIGGER iv INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END;"
        "INSERT INTO t VALUES (4)",
    )
    new, skipped = migrate(original, tmp_path)
    assert [(one.name, one.kind) for one in skipped] == [("v", "view")]
    assert raw(new, "SELECT a FROM log") == [(4,)]
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    assert raw(new, schema) == raw(original, schema)


def test_counters_and_statistics_of_sqlite_itself_go_over(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); CREATE INDEX i ON t (a);"
        "INSERT INTO t (a) VALUES (1), (1), (2); DELETE FROM t WHERE id = 3; ANALYZE;"
        "PRAGMA user_version=77; PRAGMA application_id=12345",
    )
    new, skipped = migrate(original, tmp_path)
    assert not skipped
    for table in ("sqlite_sequence", "sqlite_stat1"):
        assert_same(original, new, table)
    assert raw(new, "SELECT seq FROM sqlite_sequence") == [(3,)]
    for name in ("user_version", "application_id", "page_size", "encoding"):
        assert raw(new, f"PRAGMA {name}") == raw(original, f"PRAGMA {name}")
    assert raw(new, "PRAGMA integrity_check") == [(b"ok",)]


def test_what_is_no_table_is_named_with_a_reason(tmp_path):
    original = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT * FROM t;"
        "CREATE VIRTUAL TABLE words USING fts5 (body); INSERT INTO words VALUES ('one two')",
    )
    new, skipped = migrate(original, tmp_path)
    kinds = {one.name: one.kind for one in skipped}
    assert kinds["v"] == "view"
    assert kinds["words"] == "virtual"
    assert {name for name, kind in kinds.items() if kind == "shadow"} == {
        "words_data", "words_idx", "words_content", "words_docsize", "words_config",
    }  # fmt: skip
    assert all(one.reason for one in skipped)
    assert_same(original, new, "t", "rowid")


def test_a_table_that_only_its_application_can_write_is_named_and_the_others_go_over(tmp_path):
    path = tmp_path / "original.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("ours", lambda one, other: (one > other) - (one < other))
        connection.create_function("f", 1, lambda value: value, deterministic=True)
        connection.executescript(
            "CREATE TABLE sorted (a TEXT UNIQUE COLLATE ours); INSERT INTO sorted VALUES ('x');"
            "CREATE TABLE keyed (a TEXT COLLATE ours PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('x');"
            "CREATE TABLE checked (a CHECK (f(a))); INSERT INTO checked VALUES (1);"
            "CREATE TABLE plain (a TEXT COLLATE ours); INSERT INTO plain VALUES ('x');"
            "CREATE INDEX odd ON plain (a); CREATE INDEX on_skipped ON sorted (a)"
        )
        connection.execute(f"CREATE TABLE wide ({', '.join(f'c{number}' for number in range(2_000))})")
        connection.commit()
    new, skipped = migrate(path, tmp_path)
    assert {one.name for one in skipped} == {"sorted", "keyed", "checked", "odd", "on_skipped", "wide"}
    assert "ours" in next(one.reason for one in skipped if one.name == "sorted")
    assert_same(path, new, "plain", "rowid")


def test_a_name_that_is_no_utf8_is_reported_and_the_others_go_over(tmp_path):
    path = database(
        tmp_path / "original.sqlite", "CREATE TABLE latXn (a); CREATE TABLE t (a); INSERT INTO t VALUES (1)"
    )
    path.write_bytes(path.read_bytes().replace(b"latXn", b"lat\xeen"))
    new, skipped = migrate(path, tmp_path)
    assert [one.name for one in skipped] == ["lat\udceen"]
    assert_same(path, new, "t", "rowid")


# --- the source as its owner left it ---------------------------------------------------------------------------


def test_rows_in_a_live_wal_are_in_the_snapshot_and_those_of_an_open_transaction_are_not(tmp_path):
    path = tmp_path / "original.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA journal_mode=WAL")
        owner.execute("PRAGMA wal_autocheckpoint=0")
        owner.execute("CREATE TABLE t (a)")
        owner.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(500)])
        owner.execute("BEGIN IMMEDIATE")
        owner.execute("INSERT INTO t VALUES (-1)")
        snapshot(path, tmp_path / "copy.sqlite")
        owner.execute("COMMIT")
        owner.execute("INSERT INTO t VALUES (-2)")
    assert raw(tmp_path / "copy.sqlite", "SELECT count(*), min(a) FROM t") == [(500, 0)]
    assert (tmp_path / "copy.sqlite").read_bytes()[18:20] == b"\1\1", "one file, not in WAL mode"


CRASHES = {
    "wal": "c.execute('PRAGMA journal_mode=WAL'); c.execute('INSERT INTO t SELECT value FROM many LIMIT 700')",
    "journal": "c.execute('PRAGMA cache_size=2'); c.execute('INSERT INTO t SELECT value FROM many LIMIT 700');"
    "c.execute('BEGIN'); c.execute('UPDATE t SET a = zeroblob(3000)')",
}


@pytest.mark.parametrize("kind", CRASHES)
def test_what_a_killed_owner_had_committed_is_read_and_its_file_is_left_alone(kind, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = database(folder / "original.sqlite", "CREATE TABLE t (a)")
    counting = "WITH RECURSIVE n(value) AS (VALUES(1) UNION ALL SELECT value + 1 FROM n)"
    many = f"CREATE TEMP VIEW many AS {counting} SELECT value FROM n"
    crash = (
        f"import os, sqlite3; c = sqlite3.connect({str(path)!r}, isolation_level=None); c.execute({many!r});"
        f"{CRASHES[kind]}; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", crash]).returncode == -signal.SIGKILL
    assert (folder / f"original.sqlite-{kind}").stat().st_size
    before = path.read_bytes()
    snapshot(path, tmp_path / "copy.sqlite")
    assert raw(tmp_path / "copy.sqlite", "SELECT count(*), min(a), max(a) FROM t") == [(700, 1, 700)]
    assert path.read_bytes() == before
    assert (folder / f"original.sqlite-{kind}").stat().st_size


def test_a_migrated_source_keeps_every_byte_and_gets_no_file_beside_it(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = database(folder / "original.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    before = path.read_bytes(), path.stat().st_mtime_ns
    migrate(path, tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [file.name for file in folder.iterdir()] == ["original.sqlite"]


@pytest.mark.parametrize(
    "content", [b"this is no database, only a text of some length" * 100, b"SQLite format 3\0" * 64]
)
def test_a_file_that_is_no_database_is_a_typed_error(content, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=r"notes\.txt"):
        migrate(path, tmp_path)
    with pytest.raises(SourceUnreadable, match="no file"):
        snapshot(tmp_path / "missing.sqlite", tmp_path / "copy")


def test_names_with_percent_and_question_marks_are_file_names(tmp_path):
    original = database(tmp_path / "50%20 off? #1.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    new, _ = migrate(original, tmp_path)
    assert_same(original, new, "t", "rowid")


def test_a_locked_source_is_an_error_after_the_stated_time(tmp_path, monkeypatch):
    monkeypatch.setattr("actorstate.migrate.sqlitefiles.tables.LOCKED_FOR_S", 0.05)
    path = database(tmp_path / "original.sqlite", "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnreadable, match="locked"):
            snapshot(path, tmp_path / "copy.sqlite")


# --- the target ------------------------------------------------------------------------------------------------


def row(number: int) -> Row:
    return Row("t", number, (number, Text(b"row")))


@pytest.fixture
def target(tmp_path):
    create_database(tmp_path / "target.sqlite", ["CREATE TABLE t (id INTEGER PRIMARY KEY, a NOT NULL)"])
    with SqliteTarget(tmp_path / "target.sqlite") as opened:
        yield opened


def test_nothing_is_in_the_target_before_commit_and_all_of_it_after(target):
    target.put(row(1))
    target.put(row(2))
    assert raw(target.path, "SELECT count(*) FROM t") == [(0,)]
    target.commit()
    assert raw(target.path, "SELECT id, a FROM t") == [(1, b"row"), (2, b"row")]
    target.commit()


def test_a_full_disk_refuses_the_whole_batch_and_takes_it_later(target):
    pages = target._connection.execute("PRAGMA page_count").fetchone()[0]
    target._connection.execute(f"PRAGMA max_page_count={pages}")
    for number in range(100):
        target.put(Row("t", number, (number, b"x" * 1_000)))
    with pytest.raises(DiskFull):
        target.commit()
    assert raw(target.path, "SELECT count(*) FROM t") == [(0,)]
    target._connection.execute("PRAGMA max_page_count=100000")
    target.commit()
    assert raw(target.path, "SELECT count(*) FROM t") == [(100,)]


def test_a_row_that_the_target_refuses_takes_its_batch_with_it(target):
    target.put(row(1))
    target.put(Row("t", 2, (2, None)))
    with pytest.raises(TargetFailed, match="NOT NULL"):
        target.commit()
    assert raw(target.path, "SELECT count(*) FROM t") == [(0,)]


def test_large_values_do_not_pile_up_until_the_commit(target):
    for number in range(4):
        target.put(Row("t", number, (number, bytes(MAX_BUFFERED_BYTES // 3 + 1))))
    assert raw(target.path, "SELECT count(*) FROM t") == [(3,)]


def test_a_second_writer_waits_for_its_turn(target, monkeypatch):
    with SqliteTarget(target.path) as other, closing(sqlite3.connect(target.path, isolation_level=None)) as third:
        target.put(row(1))
        other.put(row(1))
        other.put(row(2))
        target.commit()
        other.commit()
        third.execute("BEGIN IMMEDIATE")
        other._connection.execute("PRAGMA busy_timeout=20")
        other.put(row(3))
        with pytest.raises(TargetFailed, match="locked"):
            other.commit()
        third.execute("COMMIT")
        other.commit()
    assert raw(target.path, "SELECT id FROM t") == [(1,), (2,), (3,)]


def test_a_target_that_exists_is_not_touched(tmp_path):
    path = database(tmp_path / "theirs.sqlite", "CREATE TABLE t (a)")
    before = path.read_bytes()
    with pytest.raises(TargetFailed, match="exists already"):
        create_database(path, ["DROP TABLE t"])
    assert path.read_bytes() == before


# --- dividing and comparing ------------------------------------------------------------------------------------

groups = st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12).map(
    lambda drawn: [Group(f"g{at}", items, divisible) for at, (items, divisible) in enumerate(drawn)]
)


@given(groups, st.integers(1, 40))
def test_every_item_is_in_exactly_one_part(drawn, parts):
    cut = divide(drawn, parts)
    covered = sorted(
        (part.group, at) for one in cut for part in one.ranges for at in range(part.start, part.start + part.items)
    )
    assert covered == sorted((group.name, at) for group in drawn for at in range(group.items))
    assert len(cut) <= parts
    assert len({part.name for part in cut}) == len(cut)
    assert cut == divide(drawn, parts)


@given(groups, st.integers(1, 40))
def test_what_is_not_divisible_is_in_one_piece(drawn, parts):
    pieces = [part.group for one in divide(drawn, parts) for part in one.ranges]
    assert all(pieces.count(group.name) == 1 for group in drawn if group.items and not group.divisible)


@given(st.integers(1, 500), st.integers(1, 40))
def test_parts_are_of_nearly_equal_length(items, parts):
    lengths = [part.items for part in divide([Group("g", items)], parts)]
    assert max(lengths) == -(-items // parts)
    assert all(length == max(lengths) for length in lengths[:-1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Row("g", 1, (Text(b"a"),)), Row("g", 1, (b"a",))),
        (Row("g", 1, (1,)), Row("g", 1, (1.0,))),
        (Row("g", 1, (None,)), Row("g", 1, (Text(b"None"),))),
        (Row("g", 1, (b"a", b"b")), Row("g", 1, (b"ab",))),
        (Row("g", 1, (0.0,)), Row("g", 1, (-0.0,))),
        (Row("g", 1, ()), Row("g", 2, ())),
    ],
)
def test_what_differs_has_another_digest(one, other):
    assert content_of([one]) != content_of([other])
    assert content_of([one, other]) != content_of([other, one])


def test_a_range_is_read_in_one_order_though_the_column_knows_another(tmp_path):
    path = database(
        tmp_path / "original.sqlite",
        "CREATE TABLE t (a TEXT COLLATE NOCASE, PRIMARY KEY (a COLLATE BINARY)) WITHOUT ROWID;"
        "INSERT INTO t VALUES ('b'), ('B'), ('A'), ('c'), ('a')",
    )
    with SqliteSource(path) as source:
        assert [item.values[0] for item in source.items(Range("t", 1, 3))] == [b"B", b"a", b"b"]
        assert [item.key for item in source.items(Range("t", 4, 9))] == [(Text(b"c"),)]
    assert [file.name for file in tmp_path.iterdir()] == ["original.sqlite"]

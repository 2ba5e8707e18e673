"""Folders in DATA that are not what their names say: copies, renamed ones, links, journals that nobody can read."""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from actorstate.migrate.journal import JOURNAL_NAME
from tests.support.migration import NEW, OLD, make_user, migrated, rows_of, tree, typed

BACKUP = f"{OLD}.pre-migration-backup"
VERBS = ("status", "verify", "audit", "rollback", "prune", "run", "plan")


def test_a_copied_folder_speaks_for_the_user_it_was_copied_from(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = make_user(data, "alice")
    migrated(data)
    shutil.copytree(folder, data / "zalice.bak")
    before = tree(data / "zalice.bak")
    for verb in VERBS:
        told = typed("migrate", verb, "profiles", data)
        assert told.returncode == 1, verb
        assert "is a copy of the user's 'alice'" in told.stdout, verb
        assert tree(data / "zalice.bak") == before, verb


def test_a_copy_of_an_older_journal_prunes_a_fresh_backup(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "zalice.bak")
    journal = json.loads((copy / JOURNAL_NAME).read_bytes())
    journal["ended"]["wall"] -= 40 * 86_400.0
    journal["ended"]["boottime"] -= 40 * 86_400.0
    (copy / JOURNAL_NAME).write_text(json.dumps(journal))
    for verb in ("prune", "run"):
        typed("migrate", verb, "profiles", tmp_path)
        assert (folder / BACKUP).exists(), verb


@pytest.mark.parametrize("stays", [False, True], ids=["named again", "kept under the new name"])
def test_a_renamed_folder_is_said_to_be_gone(tmp_path: Path, stays) -> None:
    rows = rows_of(make_user(tmp_path, "al") / OLD)
    migrated(tmp_path)
    (tmp_path / "al").rename(tmp_path / "al two")
    told = typed("migrate", "status", "profiles", tmp_path)
    assert told.returncode == 1
    assert "is renamed, and was the user's 'al'" in told.stdout
    again, _, anew = told.stdout.partition("give it its name again: ")[2].partition(
        "; or, if 'al two' is to be a user: "
    )
    follow(anew.splitlines()[0] if stays else again)
    user = "al two" if stays else "al"
    for verb in ("verify", "status", "audit", "rollback"):
        assert typed("migrate", verb, "profiles", tmp_path).returncode == 0, verb
    assert rows_of(tmp_path / user / OLD) == rows


def follow(line: str) -> None:
    """Types what stood in a message: `mv`, and then a command of ours."""
    for one in line.split(" && "):
        words = shlex.split(one)
        if words[0] == "actorstate":
            assert typed(*words[1:]).returncode == 0, one
        else:
            subprocess.run(words, check=True)


def test_one_unreadable_journal_stops_the_work_for_all_others(tmp_path: Path) -> None:
    rows = rows_of(make_user(tmp_path, "bob") / OLD)
    make_user(tmp_path, "al")
    migrated(tmp_path)
    (tmp_path / "al" / JOURNAL_NAME).unlink()
    (tmp_path / "al" / JOURNAL_NAME).mkdir()
    for verb in ("status", "verify", "audit", "prune", "rollback"):
        told = typed("migrate", verb, "profiles", tmp_path)
        assert told.returncode == 1, verb
        assert "cannot be read: Is a directory" in told.stdout, verb
        assert "doctor" not in told.stdout + told.stderr
        assert "Error" not in told.stdout, verb
    assert rows_of(tmp_path / "bob" / OLD) == rows
    line = re.search(r"mv -n .*", typed("migrate", "status", "profiles", tmp_path).stdout)
    assert line is not None
    follow(line[0])
    assert typed("migrate", "status", "profiles", tmp_path).returncode == 0
    assert (tmp_path / "al" / NEW).exists()


def test_a_link_to_another_users_folder_is_followed_by_some_commands(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    make_user(data, "alice")
    make_user(other, "link")
    migrated(other)
    before = tree(other)
    (data / "link").symlink_to(other / "link")
    for verb in VERBS:
        told = typed("migrate", verb, "profiles", data)
        assert told.returncode == 1, verb
        assert "is a symbolic link" in told.stdout, verb
        assert tree(other) == before, verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_users_folder_in_the_place_of_data_is_said_to_be_in_order(tmp_path: Path, verb: str) -> None:
    make_user(tmp_path, "alice")
    make_user(tmp_path, "bob")
    migrated(tmp_path, user="bob")
    for user in ("alice", "bob"):
        before = tree(tmp_path), sorted(tmp_path.rglob("*"))
        told = typed("migrate", verb, "profiles", tmp_path / user, "--state", tmp_path / "jobs")
        assert told.returncode == 4
        assert "is a user's own folder" in told.stderr
        assert f"{tmp_path} --user {user}" in told.stderr
        assert (tree(tmp_path), sorted(tmp_path.rglob("*"))) == before


def test_a_name_with_a_line_break_or_a_message_without_a_command_to_paste(tmp_path: Path) -> None:
    make_user(tmp_path, "two\nlines")
    both = make_user(tmp_path, "both")
    (both / NEW).parent.mkdir(parents=True)
    (both / NEW).write_bytes((make_user(tmp_path.with_name(f"{tmp_path.name}-2"), "other") / OLD).read_bytes())
    (make_user(tmp_path, "noise") / OLD).write_bytes(b"\xff" * 8192)
    for verb in VERBS:
        assert "two\nlines" not in typed("migrate", verb, "profiles", tmp_path).stdout, verb
    look = f"look closer: actorstate migrate audit profiles {tmp_path} --user both\n"
    assert look in typed("migrate", "plan", "profiles", tmp_path).stdout
    told = typed("migrate", "run", "profiles", tmp_path).stdout
    assert look in told
    assert "name a source" not in told
    assert f"see the plan: actorstate migrate plan profiles {tmp_path} --user noise\n" in told
    with sqlite3.connect(both / NEW) as app:
        app.execute("DELETE FROM items WHERE id = 1")
    app.close()
    told = typed("migrate", "audit", "profiles", tmp_path).stdout
    assert f"actorstate migrate audit profiles {tmp_path} --user both --mend --keep old" in told
    before = tree(tmp_path)
    refused = typed("migrate", "audit", "profiles", tmp_path, "--keep", "old")
    assert (refused.returncode, tree(tmp_path)) == (2, before)
    wrong = typed("migrate", "run", "profiles", tmp_path, "--grace", "3")
    assert len(wrong.stderr.splitlines()) == 2

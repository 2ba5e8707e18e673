"""The rules of the house, as far as a machine can check them: layers, homes, sizes, names, and the README's word.

Everything here reads the source as text or as a syntax tree. Of the package only the README's checks import anything.
"""

import ast
import builtins
import functools
import itertools
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "actorstate"

HOMES = {
    "zmq": ("actorstate.writer.server", "actorstate.client.sync", "actorstate.client.aio", "actorstate.client.mirror"),
    "msgpack": ("actorstate.core.messages",),
    "msgspec": ("actorstate.core",),
    "tenacity": ("actorstate.client.calls",),
    "sqlite3": ("actorstate.store.sqlite", "actorstate.migrate.sqlitefiles"),
    "psycopg": ("actorstate.store.postgres",),
    "rich": ("actorstate.cli", "actorstate.demo"),
    "flask": ("actorstate.web",),
    "prometheus_client": ("actorstate.web", "actorstate.writer"),
}
"""Each library has one home, so that replacing it, or finding out how it is used, is one file's work."""

IMPURE = {
    "asyncio", "concurrent", "fcntl", "glob", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys",
    "tempfile", "threading", "time", "uuid", "zmq",
}  # fmt: skip
"""What the core must not import: clocks, files, sockets, threads, logs and random numbers come in as arguments."""

FORBIDDEN_WORDS = {"manager", "managers", "helper", "helpers", "util", "utils", "base", "abstract"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
MAX_FUNCTION_LINES, MAX_MODULE_LINES, MAX_MEDIAN_LINES, MAX_P95_LINES = 40, 400, 6, 24

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees of the package, by dotted name; a package is named without its `__init__`."""
    return {_dotted(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name or "") of each import anywhere in the tree: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import at line {node.lineno}: name the module in full"
            yield from ((node.module or "", alias.name) for alias in node.names)


def text_files() -> list[Path]:
    """The files of the project that git tracks or would track."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        found = [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    else:
        listed = subprocess.run(
            [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in found if b"\0" not in path.read_bytes()[:4096]]


# --- layers, cycles, homes -------------------------------------------------------------------------------------


def test_every_import_goes_down_the_layers():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_import_cycle_of_any_kind():
    graph = {name: _own_imports(tree) - {name} for name, tree in modules().items()}
    cycles = [" -> ".join(cycle) for name in graph if (cycle := _way_back(graph, name))]
    assert not cycles, "\n".join(cycles)


def _own_imports(tree: ast.Module) -> set[str]:
    targets: set[str] = set()
    for module, name in imported(tree):
        if f"{module}.{name}" in modules():
            targets.add(f"{module}.{name}")
        elif module in modules():
            targets.add(module)
    return targets


def _way_back(graph: dict[str, set[str]], start: str) -> list[str]:
    paths = [[start, target] for target in sorted(graph[start])]
    seen: set[str] = set()
    for path in paths:  # grows while it is walked: breadth first, so the shortest cycle is the one shown
        if path[-1] == start:
            return path
        if path[-1] not in seen:
            seen.add(path[-1])
            paths.extend([*path, target] for target in sorted(graph[path[-1]]))
    return []


def test_names_come_from_the_module_that_defines_them():
    wrong = [
        f"{name}: from {module} import {what}"
        for name, tree in modules().items()
        for module, what in imported(tree)
        if module == "actorstate" and f"actorstate.{what}" not in modules() and what != "__version__"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_hides_under_type_checking():
    wrong = [name for name, tree in modules().items() if ("typing", "TYPE_CHECKING") in imported(tree)]
    assert not wrong


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_stays_in_its_home(library):
    strangers = [
        name
        for name, tree in modules().items()
        if any(module.split(".")[0] == library for module, _ in imported(tree))
        and not any(name == home or name.startswith(f"{home}.") for home in HOMES[library])
    ]
    assert not strangers, f"{library} belongs to {HOMES[library]}"


def test_the_core_imports_nothing_that_touches_the_world():
    wrong = [
        f"{name} imports {module}"
        for name, tree in modules().items()
        if name.startswith("actorstate.core")
        for module, _ in imported(tree)
        if module.split(".")[0] in IMPURE
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_never_asks_for_the_time():
    clocks = {"now", "utcnow", "today", "fromtimestamp"}
    wrong = [
        f"{name}:{node.lineno} {ast.unparse(node.func)}"
        for name, tree in modules().items()
        if name.startswith("actorstate.core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in clocks
        and ast.unparse(node.func.value) in {"datetime", "date", "datetime.datetime"}
        and not (node.func.attr == "fromtimestamp" and node.args)
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_nothing_is_ever_unpickled():
    wrong = [
        f"{name} imports {module}"
        for name, tree in modules().items()
        for module, _ in imported(tree)
        if module.split(".")[0] in UNPICKLERS
    ]
    assert not wrong, "\n".join(wrong)


# --- sizes, heads, names ---------------------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, Function]]:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.lineno} {node.name}", node


def lines_of(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_no_function_is_too_long_to_read_at_once():
    long = [f"{where}: {lines_of(function)}" for where, function in functions()
            if lines_of(function) > MAX_FUNCTION_LINES]  # fmt: skip
    assert not long, "\n".join(long)


def test_most_functions_are_short():
    lengths = sorted(lines_of(function) for _, function in functions())
    p95 = lengths[int(len(lengths) * 0.95)]
    assert statistics.median(lengths) <= MAX_MEDIAN_LINES, f"median {statistics.median(lengths)}"
    assert p95 <= MAX_P95_LINES, f"95 % of the functions are up to {p95} lines long"


def test_no_module_is_too_long():
    long = {str(path.relative_to(ROOT)): lines for path in PACKAGE.rglob("*.py")
            if (lines := len(path.read_text().splitlines())) > MAX_MODULE_LINES}  # fmt: skip
    assert not long


def test_every_file_head_says_what_the_file_is():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]
    mute = [str(path.relative_to(ROOT)) for path in paths
            if (text := path.read_text()).strip() and not ast.get_docstring(ast.parse(text))]  # fmt: skip
    assert not mute


def test_no_name_says_nothing():
    defined = [(name, name.rpartition(".")[2]) for name in modules()]
    for name, tree in modules().items():
        defined += [(f"{name}:{node.lineno}", node.name) for node in ast.walk(tree)
                    if isinstance(node, (ast.ClassDef, Function))]  # fmt: skip
    empty = [f"{where} {word}" for where, word in defined if FORBIDDEN_WORDS & set(_words(word))]
    assert not empty, "\n".join(empty)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def test_no_test_waits_by_sleeping():
    sleeping = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")
                if re.search(r"\btime\.sleep\(|\bfrom time import .*\bsleep\b", path.read_text())]  # fmt: skip
    assert not sleeping, "wait for an event, a line or a state instead"


def test_the_drawing_of_the_error_tree_is_the_tree():
    tree = modules()["actorstate.errors"]
    classes = {node.name: ast.unparse(node.bases[0]) for node in tree.body
               if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}  # fmt: skip
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (ast.get_docstring(tree) or "").splitlines():
        if found := re.match(r"^([ │├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth = len(found[1]) // 4
            above[depth] = found[2]
            drawn[found[2]] = above.get(depth - 1, "Exception")
    assert drawn == classes


def test_no_file_names_a_package_registry():
    hosts = re.compile(
        r"\b(?:pypi|pythonhosted|npmjs|npmmirror|debian|ubuntu)\.(?:org|com|net)\b|--(?:extra-)?index-url"
    )
    naming = [f"{path.relative_to(ROOT)}: {found[0]}" for path in text_files()
              if (found := hosts.search(path.read_text(errors="replace")))]  # fmt: skip
    assert not naming, "\n".join(naming)


def test_the_package_and_its_metadata_tell_one_version():
    from actorstate.config import VERSION

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert told == VERSION
    assert f"## {told} " in (ROOT / "CHANGELOG.md").read_text()


# --- linters and type checkers ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--no-cache", "."], id="ruff"),
        pytest.param(["mypy", "--cache-dir", "{tmp}"], id="mypy"),
        pytest.param(["pyright", "--pythonpath", sys.executable], id="pyright"),
    ],
)
def test_checkers_have_nothing_to_say(command, tmp_path):
    arguments = [part.replace("{tmp}", str(tmp_path)) for part in command]
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]


# --- the README ------------------------------------------------------------------------------------------------


@functools.cache
def readme() -> str:
    path = ROOT / "README.md"
    assert path.exists(), "README.md is missing"
    return path.read_text()


def fences(*languages: str) -> list[str]:
    """The README's code blocks in one of these languages."""
    return [text for language, text in re.findall(r"^```(\w*)\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)
            if language in languages]  # fmt: skip


def inline_code() -> list[str]:
    prose = re.sub(r"^```.*?^```", "", readme(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def shell_commands() -> list[str]:
    """One command a line: after the prompt where the block has prompts, else every line."""
    found = []
    for block in fences("sh", "bash", "shell", "console"):
        lines = re.sub(r"\\\n\s*", " ", block).splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        found += prompted or [line for line in lines if line.strip()]
    return found


def faces() -> dict[str, tuple[object, ...]]:
    """What the names used throughout the README stand for."""
    import actorstate
    from actorstate.client.run import Run
    from actorstate.client.sync import Client
    from actorstate.core.messages.document import JobState

    return {"actorstate": (actorstate,), "client": (Client,), "job": (Run,), "state": (JobState,)}


def test_the_python_in_the_readme_uses_names_that_exist():
    blocks = fences("python")
    assert blocks, "the README shows no Python"
    wrong = [problem for block in blocks for problem in _unknown_names(ast.parse(block))]
    assert not wrong, "\n".join(wrong)


def _unknown_names(tree: ast.Module) -> Iterator[str]:
    for module, name in imported(tree):
        if module.split(".")[0] == "actorstate":
            spoken = f"import {module} {name}".strip()
            result = subprocess.run([sys.executable, "-c", _import_line(module, name)], cwd=ROOT, capture_output=True)
            if result.returncode:
                yield spoken
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _unknown_attribute(ast.unparse(node))


def _import_line(module: str, name: str) -> str:
    return f"from {module} import {name}" if name else f"import {module}"


def _unknown_attribute(chain: str) -> Iterator[str]:
    root, *attributes = chain.split(".")
    candidates = faces().get(root)
    if candidates is None or not all(name.isidentifier() for name in attributes):
        return
    for attribute in attributes:
        if not candidates:
            return  # beyond what annotations tell
        if not any(hasattr(one, attribute) or attribute in _annotations(one) for one in candidates):
            yield f"{chain}: there is no {attribute!r}"
            return
        candidates = tuple(found for one in candidates for found in _types_behind(one, attribute))


def _annotations(owner: object) -> dict[str, object]:
    return typing.get_type_hints(owner) if isinstance(owner, type) else {}


def _types_behind(owner: object, attribute: str) -> Iterator[object]:
    """The classes (or the module) that `owner.attribute` may be; nothing where the types do not say."""
    value = getattr(owner, attribute, None)
    if isinstance(value, property):
        hint = typing.get_type_hints(value.fget).get("return")
    elif isinstance(value, types.ModuleType):
        yield value
        return
    else:
        hint = _annotations(owner).get(attribute)
    for part in typing.get_args(hint) or (hint,):
        if isinstance(part, type) and part.__module__.startswith("actorstate"):
            yield part


def test_the_commands_in_the_readme_parse():
    from actorstate.cli.main import build_parser

    wrong = []
    for line in shell_commands():
        for arguments in _actorstate_calls(line):
            try:
                build_parser(arguments).parse_args(arguments)
            except SystemExit as exit_:
                if exit_.code:
                    wrong.append(line)
    assert not wrong, "\n".join(wrong)


def _actorstate_calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of `actorstate` (or `python -m actorstate`) in a shell line."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    for operator, part in itertools.groupby(words, key=lambda word: set(word) <= set("();<>|&")):
        call = list(part)
        at = next((at for at, word in enumerate(call) if word == "actorstate" or word.endswith("/actorstate")), None)
        if operator or at is None:
            continue
        before = [word for word in call[:at] if "=" not in word]
        if not before or before[-1] == "-m":
            yield call[at + 1 :]


def test_inline_code_in_the_readme_names_what_exists():
    from actorstate.cli.main import COMMANDS

    known = {command.name for command in COMMANDS}
    wrong = []
    for code in inline_code():
        if found := re.match(r"actorstate ([a-z][a-z-]*)", code):
            wrong += [code] if found[1] not in known else []
        elif found := re.match(r"((?:actorstate|client|job|state)(?:\.\w+)+)", code):
            wrong += list(_unknown_attribute(found[1]))
        elif re.fullmatch(r"(?!\.?/|~)[\w.-]+(/[\w.-]+)*\.(py|md|toml|service|socket|conf|yml|yaml|sh)", code):
            wrong += [] if _is_a_file(code) else [code]
        elif re.fullmatch(r"[A-Z][a-z]+([A-Z][a-z]+)+", code):
            wrong += [] if _is_a_class(code) else [code]
    assert not wrong, "\n".join(wrong)


def _is_a_file(name: str) -> bool:
    if any((folder / name).exists() for folder in (ROOT, PACKAGE, ROOT / "deploy", ROOT / "tests")):
        return True
    if "/" not in name:
        return any(path.name == name for path in text_files())
    as_package = PACKAGE / name.removesuffix(".py")
    return name.endswith(".py") and as_package.is_dir()


def _is_a_class(name: str) -> bool:
    if hasattr(builtins, name):
        return True
    written = "\n".join(path.read_text(errors="replace") for path in text_files() if "deploy" in path.parts)
    classes = {node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return name in classes or name in written


def test_ci_finds_its_one_test_command_in_the_readme():
    found = re.findall(r"^(?:\$ )?python3 -m venv \.venv .*\.venv/bin/pytest.*$", readme(), re.MULTILINE)
    assert len(found) == 1, ".ci/run runs the one line of the README that ends in pytest"

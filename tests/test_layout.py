"""The contracts of the source tree, read from the source itself.

Every table of exceptions gives a reason beside each; an exception that is no
longer used fails too, so that the tables stay true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dnsproxy.events import EVENTS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dnsproxy"
MAX_LINES = 500
# One subject that is read as a whole.
LONG_MODULES = {"dnsproxy/core/addresses/lifecycle.py": 800}

# Lowest first. A module imports from its own layer or a lower one. `net`,
# `helper`, `admin` and `ops` are one layer whose members do not know one another.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "version", "core"}),
    frozenset(
        {
            "settings",
            "config",
            "config_files",
            "events",
            "eventfields",
            "logs",
            "keys",
            "trust",
            "system",
            "processors",
            "tokens",
            "files",
            "authorities",
            "children",
            "transport",
            "notify",
            "privileges",
            "lifecycle",
            "host_calls",
            "certificate",
            "http_connection",
            "http_listener",
            "time_slice",
            "tls_transport",
            "output",
            "supervise",
            "writer",
            "reload_socket",
        }
    ),
    frozenset({"net", "helper", "admin", "ops"}),
    frozenset(
        {"plane", "outfit", "server", "address_service", "embedded", "learning", "watching", "app", "workers"}
    )
    | {"facts", "activation", "referenced", "reload", "daemon"},
    frozenset({"cli", "commands", "__main__"}),
)
SIBLINGS = LAYERS[2]

# (importer, imported part) → why.
LAYER_EXCEPTIONS = {
    ("ops.demo", "app"): "the demo runs the whole program",
    ("ops.demo", "helper"): "the same",
    ("ops.demo_screen", "app"): "it draws the proxy that the demo runs",
    ("ops.demo_screen", "admin"): "the same, from the document that `status` gets over HTTP",
    ("ops.known", "net"): "reads the proxy's state file when no proxy runs that could be asked",
}

# The only importers of a package; a trailing dot means a whole folder.
ONLY_IN = {
    "dnslib": {
        "core.message": "the one place where the proxy makes records",
        "helper.resolve": "the helper makes its queries with it",
        "ops.doctor_dns": "diagnostics make their queries with it",
        "ops.demo_checks": "the demo stands where a client stands",
        "ops.demo_world": "the demo stands where an upstream stands",
    },
    "yaml": {"config": "the configuration file is the only YAML"},
    "dnstap_pb": {"net.dnstap": "an extra: imported where it is configured"},
    "fstrm": {"net.dnstap": "the same"},
    "asyncio_dgram": {
        "helper.": "control plane: the helper's resolver",
        "net.probe": "control plane: health probes",
        "admin.": "control plane",
        "ops.": "control plane: diagnostics and the demo",
    },
}
FORBIDDEN_IN_CORE = frozenset(
    {"asyncio", "socket", "ssl", "time", "random", "secrets", "structlog", "yaml", "asyncio_dgram", "aiohttp"}
)

# Where a command may end with a code of its own: after it has printed why.
EXIT_CALLS = frozenset({"typer.Exit", "sys.exit", "SystemExit"})
EXITS = {("cli", "main"): "the last line; `_run` has printed", ("commands.options", "fail"): "prints first"}

# The event loop keeps only weak references to tasks. Where no TaskGroup holds
# one, somebody else must.
LOOSE_TASKS = {
    "http_listener": "kept until done, cancelled by close(); one that accepts, one per connection being made",
    "net.tls": "kept until done, cancelled by close(); one that accepts, one per handshake",
    "net.tcp": "kept until done, cancelled by close(); one per PROXY header that is awaited",
    "net.channel": "kept in a dictionary until done, cancelled by close(); one per connection being made",
    "app": "awaited and cancelled where they are made; an endpoint that ends is awaited by close()",
    "helper.server": "awaited and cancelled where they are made",
    "daemon": "cancelled by the function that made it",
    "supervise": "awaited and cancelled where it is made",
    "ops.demo": "the same",
    "ops.demo_world": "kept by the context manager that cancels it",
}

NO_TEST_NEEDED = frozenset({"__init__", "__main__", "version"})
# Tests that mirror no module: this one, that of the documents, and whole-program tests.
NOT_MIRRORED = frozenset({"test_layout.py", "test_documents.py"})
WHOLE_PROGRAM = frozenset(
    {
        "browser",
        "deploy",
        "e2e",
        "faults",
        "fleet",
        "interop",
        "model",
        "netns",
        "properties",
        "scenarios",
        "soak",
    }
)


@cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees by dotted name below the package; `core` stands for `core/__init__.py`."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in PACKAGE.rglob("*.py")
    }


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of everything imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> Iterator[str]:
    """What ``module`` imports from this package, without the package's name."""
    for name in imports(modules()[module]):
        if name.startswith("dnsproxy."):
            yield name.removeprefix("dnsproxy.")


def part(module: str) -> str:
    return module.partition(".")[0]


def level(name: str) -> int:
    return next(height for height, layer in enumerate(LAYERS) if name in layer)


def covered(module: str, allowed: dict[str, str]) -> bool:
    return any(module == entry or (entry.endswith(".") and module.startswith(entry)) for entry in allowed)


def test_the_trees_were_found() -> None:
    assert {"core.engine", "core", "cli", "settings"} <= set(modules())


def test_every_part_has_a_layer() -> None:
    parts = {part(module) for module in modules()} - {"__init__"}
    assert parts - frozenset().union(*LAYERS) == set()


def test_imports_go_down() -> None:
    wrong, used = [], set()
    for module in sorted(set(modules()) - {"__init__"}):
        for imported in own_imports(module):
            mine, theirs = part(module), part(imported)
            sideways = mine != theirs and {mine, theirs} <= SIBLINGS
            if not sideways and level(theirs) <= level(mine):
                continue
            if (module, theirs) in LAYER_EXCEPTIONS:
                used.add((module, theirs))
            else:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []
    assert set(LAYER_EXCEPTIONS) - used == set(), "exceptions that nothing needs"


def test_the_helper_does_not_know_the_engine() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in modules()
        if part(module) == "helper"
        for imported in own_imports(module)
        if imported == "core.engine" or imported.startswith("core.engine.")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_package_stays_behind_its_few_importers(package: str) -> None:
    importers = {
        module for module, tree in modules().items() if any(part(name) == package for name in imports(tree))
    }
    assert importers, f"nothing imports {package}"
    assert {module for module in importers if not covered(module, ONLY_IN[package])} == set()


# dnslib follows every chain of compression pointers again for each name: a message of 4 kB costs it 0.3 s.
DECODES = {
    "ops.demo_checks": "the replies of the proxy that the demo runs",
    "ops.demo_world": "queries that the same proxy sends on loopback",
}


def test_p29_dnslib_only_makes_messages() -> None:
    wrong, used = [], set()
    for module, tree in modules().items():
        if not any(part(name) == "dnslib" for name in imports(tree)):
            continue
        names = {
            alias for name in imports(tree) if part(name) == "dnslib" for alias in [name.rpartition(".")[2]]
        }
        reads = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr in {"parse", "unpack", "decode_name", "fromZone"}
            and ast.unparse(node.value).partition(".")[0] in names
        ]
        if reads or "DNSBuffer" in names:
            used.add(module)
            wrong += [f"{module}: {reads}"] if module not in DECODES else []
    assert wrong == []
    assert set(DECODES) == used, "exceptions that nothing needs"


# Modules and functions that turn bytes into code or into objects of any class.
EXECUTING = frozenset(
    {"pickle", "_pickle", "marshal", "shelve", "copyreg", "dbm", "multiprocessing", "concurrent.interpreters"}
    | {"code", "codeop", "runpy", "dill", "cloudpickle", "jsonpickle", "joblib"}
)
EXECUTING_CALLS = re.compile(
    r"(builtins\.)?(eval|exec|compile)|yaml\.(unsafe_|full_)?load(_all)?|.*\.Unpickler"
)


def test_no_format_that_can_execute_code_is_read() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in modules().items()
        for name in imports(tree)
        if part(name) in EXECUTING
    ]
    wrong += [
        f"{module}:{node.lineno}: {ast.unparse(node.func)}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and EXECUTING_CALLS.fullmatch(ast.unparse(node.func))
    ]
    assert wrong == []


def test_core_decides_and_does_not_act() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in modules().items()
        if part(module) == "core"
        for name in imports(tree)
        if part(name) in FORBIDDEN_IN_CORE
    ]
    assert wrong == []


def test_modules_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {
        name: length for name, length in lengths.items() if length >= LONG_MODULES.get(name, MAX_LINES)
    } == {}
    assert all(lengths[name] >= MAX_LINES for name in LONG_MODULES), "exceptions that nothing needs"


# --- tasks


def task_groups(tree: ast.Module) -> set[str]:
    """Names bound by ``async with asyncio.TaskGroup() as name`` or annotated as one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            if ast.unparse(node.context_expr).endswith("TaskGroup()"):
                names.add(node.optional_vars.id)
        elif isinstance(node, ast.arg) and node.annotation is not None:
            names |= {node.arg} if ast.unparse(node.annotation).endswith("TaskGroup") else set()
    return names


def loose_tasks(tree: ast.Module) -> list[str]:
    """Calls that make a task no TaskGroup holds."""
    groups = task_groups(tree)
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if call.rpartition(".")[2] in {"create_task", "ensure_future"}
        and call.rpartition(".")[0] not in groups
    ]


def test_loose_tasks_are_recognised() -> None:
    source = """
async def one():
    async with asyncio.TaskGroup() as group:
        group.create_task(work())
    asyncio.create_task(work())
    self._loop.create_task(work())
    asyncio.get_running_loop().create_task(work())
    ensure_future(work())
def two(tasks: asyncio.TaskGroup):
    tasks.create_task(work())
"""
    assert loose_tasks(ast.parse(source)) == [
        "asyncio.create_task",
        "self._loop.create_task",
        "asyncio.get_running_loop().create_task",
        "ensure_future",
    ]


def test_tasks_belong_to_a_group() -> None:
    found = {module: calls for module, tree in modules().items() if (calls := loose_tasks(tree))}
    assert {module: calls for module, calls in found.items() if module not in LOOSE_TASKS} == {}
    assert set(LOOSE_TASKS) - set(found) == set(), "exceptions that nothing needs"


# Groups of tasks that are no background work, or are not ported yet: a failure of one is that of the whole.
TOGETHER = {
    "helper.jury": "one question to each proxy, all answered before the next round",
    "helper.resolve": "the two address types of one look",
    "helper.service": "the looks of one round; what fails is caught in each",
    "net.probe": "probes; each catches what fails",
}


def unsupervised(tree: ast.Module) -> list[str]:
    """Tasks of groups that are not wrapped in `supervise`."""
    groups = task_groups(tree)
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "create_task"
        and ast.unparse(node.func.value) in groups
        and not ast.unparse(node.args[0]).startswith("supervise(")
    ]


def test_background_tasks_are_supervised() -> None:
    source = """
async def one():
    async with asyncio.TaskGroup() as group:
        group.create_task(supervise("work", work))
        group.create_task(work())
"""
    assert unsupervised(ast.parse(source)) == ["group.create_task(work())"]
    found = {module: tasks for module, tree in modules().items() if (tasks := unsupervised(tree))}
    assert {module: tasks for module, tasks in found.items() if module not in TOGETHER} == {}
    assert set(TOGETHER) - set(found) == set(), "exceptions that nothing needs"


# --- datagram streams

# For each datagram that the kernel does not take at once, CPython 3.13.0 to 3.13.5 never take back 8 of the
# octets that they count as waiting (gh-135444). After some 8,000 of these, `send` waits for ever. A stream
# per conversation sends one or a few.
LONG_STREAMS = {"ops.demo_world": "the demo's resolver, bound to loopback, where the kernel takes everything"}


def opened_and_closed(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """For each function that opens a stream of asyncio-dgram: its name, and whether it also closes one."""
    for function in ast.walk(tree):
        if isinstance(function, ast.AsyncFunctionDef):
            text = ast.unparse(function)
            if re.search(r"asyncio_dgram\.(connect|bind|from_socket)\(", text):
                ends = [node for node in ast.walk(function) if isinstance(node, ast.Try)]
                closes = any("stream.close()" in map(ast.unparse, node.finalbody) for node in ends)
                yield function.name, closes


def test_p28_a_datagram_stream_lives_for_one_conversation() -> None:
    found = [
        (module, name, closes)
        for module, tree in modules().items()
        for name, closes in opened_and_closed(tree)
    ]
    assert len(found) > 2
    kept = {module for module, _, closes in found if not closes}
    assert kept == set(LONG_STREAMS)


# --- log events

LEVELS = {"debug", "info", "warning", "error", "exception"}


def facts_of(call: ast.Call, function: ast.AST) -> set[str]:
    """The keys of a log call; those behind ``**`` from the dictionary of that name in the same function."""
    keys: set[str] = set()
    for keyword in call.keywords:
        if keyword.arg is not None:
            keys.add("exception" if keyword.arg == "exc_info" else keyword.arg)
            continue
        assert isinstance(keyword.value, ast.Name), ast.unparse(call)
        (found,) = (
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == keyword.value.id
        )
        assert isinstance(found, ast.Dict), ast.unparse(found)
        keys |= {str(key.value) for key in found.keys if isinstance(key, ast.Constant)}
    return keys


def logged(tree: ast.Module) -> Iterator[tuple[str, str, set[str]]]:
    """Event, level and facts of each ``log.<level>(...)``."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if ast.unparse(call.func.value) == "log" and call.func.attr in LEVELS:
                (name,) = call.args
                assert isinstance(name, ast.Constant), f"not a constant: {ast.unparse(call)}"
                facts = facts_of(call, function)
                if call.func.attr == "exception":
                    yield str(name.value), "error", facts | {"exception"}
                else:
                    yield str(name.value), call.func.attr, facts


def test_log_calls_are_recognised() -> None:
    source = """
def one():
    facts = {"a": 1, "b": 2}
    log.info("x.one", **facts, c=3)
    log.exception("x.two", d=4)
"""
    assert list(logged(ast.parse(source))) == [
        ("x.one", "info", {"a", "b", "c"}),
        ("x.two", "error", {"d", "exception"}),
    ]


def test_nothing_is_logged_in_another_way() -> None:
    for module, tree in modules().items():
        uses = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "log" and node.attr in LEVELS
        ]
        assert len(list(logged(tree))) >= len(uses), f"{module}: not a call with a constant, in a function"


def test_the_register_of_events_is_the_source() -> None:
    levels: dict[str, set[str]] = {}
    facts: dict[str, set[str]] = {}
    for tree in modules().values():
        for event, level, keys in logged(tree):
            levels.setdefault(event, set()).add(level)
            facts.setdefault(event, set()).update(keys)
    registered = {name: {event.level} for name, event in EVENTS.items()}
    assert levels == registered, (
        "dnsproxy/events.py does not have what the source logs, or the other way round"
    )
    assert facts == {name: set(event.fields) for name, event in EVENTS.items()}


# --- tests


def exits(tree: ast.AST) -> Iterator[str]:
    """Yield the function of each `typer.Exit` with a code, and each call of `sys.exit`."""
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in EXIT_CALLS:
                    yield function.name


def test_a_command_prints_why_before_it_exits_with_a_code() -> None:
    commands = {m: tree for m, tree in modules().items() if part(m) in {"cli", "commands"}}
    found = {(module, function) for module, tree in commands.items() for function in exits(tree)}
    assert found == EXITS.keys()


def mirror(module: str) -> Path:
    *folders, name = module.split(".")
    return ROOT.joinpath("tests", *folders, f"test_{name}.py")


def test_every_module_has_its_test() -> None:
    wanted = [
        module
        for module in modules()
        if module.rpartition(".")[2] not in NO_TEST_NEEDED
        and not PACKAGE.joinpath(*module.split(".")).is_dir()
    ]
    missing = sorted(str(mirror(m).relative_to(ROOT)) for m in wanted if not mirror(m).is_file())
    assert not missing, "missing: " + " ".join(missing)


def test_every_test_mirrors_a_module() -> None:
    strays = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        relative = path.relative_to(ROOT / "tests")
        if relative.parts[0] in WHOLE_PROGRAM or str(relative) in NOT_MIRRORED:
            continue
        source = relative.with_name(relative.name.removeprefix("test_"))
        # The benchmark and the generator of pages have tests too: tests/bench/ mirrors bench/.
        if not (PACKAGE / source).is_file() and not (ROOT / source).is_file():
            strays.append(str(relative))
    assert strays == []

"""Who may import whom in exporter/ (docs/architecture.md): read from the code with ast, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FREE = frozenset({"limiter", "counted"})
"""Small modules of the top level that import nothing of ours, for every room."""
ALL_BUT_THE_TOP = frozenset(
    {"model", "config", "outbox", "protocol", "meters", "simulator", "sources", "derive", "pipeline", "sinks"}
)
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "model": frozenset(),
    "config": frozenset(),
    "outbox": frozenset(),
    "protocol": frozenset({"model"}),
    "meters": frozenset({"protocol", "model"}),
    "simulator": frozenset({"protocol", "model"}),
    "sources.contract": frozenset({"model"}),
    "sources": frozenset({"sources.contract", "protocol.framing", "model", "config"}),
    "derive": frozenset({"model", "config"}),
    "pipeline": frozenset({"model", "config", "protocol", "meters", "derive", "sources.contract"}),
    "sinks": frozenset({"model", "outbox", "config"}),
    "live": frozenset({"model", "pipeline"}),
    "service": ALL_BUT_THE_TOP,
    # The sums of a month and the capacity charge are calculated once, in derive.
    "report": frozenset({"model", "outbox", "sinks", "config", "derive"}),
    "cli": ALL_BUT_THE_TOP | {"service", "live", "report"},
    "sources.sim": frozenset({"simulator"}),
}


class Import(NamedTuple):
    """`module` imports `name` (of ours, without "exporter."); `at_load` says that it does so when it is loaded."""

    module: str
    name: str
    at_load: bool
    line: int


def room_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def modules() -> Mapping[str, ast.Module]:
    """Every module of the product, without "exporter.", by its syntax tree."""
    found = {}
    for path in sorted((ROOT / "exporter").rglob("*.py")):
        parts = path.relative_to(ROOT / "exporter").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


def imports(module: str) -> Iterator[Import]:
    """The imports of ours in a module; those for type checking count, but not as loaded."""
    tree = modules()[module]
    at_load = {id(node) for node in _at_load(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "exporter":
            base = node.module.removeprefix("exporter").removeprefix(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".removeprefix(".")
                yield Import(module, name, id(node) in at_load, node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("exporter."):
                    yield Import(module, alias.name.removeprefix("exporter."), id(node) in at_load, node.lineno)


def _at_load(tree: ast.Module) -> Iterator[ast.AST]:
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not guarded and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from ast.walk(node)


def module_of(name: str) -> str:
    """The module that an imported name is, or is in."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def allowed(module: str, imported: str) -> bool:
    own, other = room_of(module), room_of(imported)
    if own == other or other in FREE or not imported or not module:
        return True
    wanted = (
        MAY_IMPORT.get(module, frozenset()) | MAY_IMPORT[own] if module != "sources.contract" else MAY_IMPORT[module]
    )
    return any(imported == rule or imported.startswith(f"{rule}.") for rule in wanted)


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(module) for module in modules()} - {""} - FREE
    assert rooms == {room_of(rule) for rule in MAY_IMPORT}


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    wrong = [
        f"exporter/{module.replace('.', '/')}.py:{one.line} imports {module_of(one.name)}"
        for one in imports(module)
        if not allowed(module, module_of(one.name))
    ]
    assert not wrong


def test_sources_know_the_contract_and_not_each_other_through_its_package() -> None:
    assert not list(imports("sources.contract"))


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_private_name_is_imported_from_another_module(module: str) -> None:
    private = [
        f"line {one.line}: {one.name}"
        for one in imports(module)
        if one.name not in modules() and one.name.rpartition(".")[2].startswith("_") and "__" not in one.name
    ]
    assert not private


def test_no_module_imports_itself_in_a_circle() -> None:
    """Of what is imported when a module is loaded; a package's __init__ counts as a module."""
    graph = {module: {module_of(one.name) for one in imports(module) if one.at_load} - {module} for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_test_and_no_tool_imports_a_private_name() -> None:
    private = [
        f"{path}:{node.lineno} imports {alias.name}"
        for folder in ("tests", "grafana")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"exporter", "tests", "grafana"}
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not private


@pytest.mark.parametrize("room", ["model", "protocol", "meters", "derive", "simulator", "pipeline"])
def test_rooms_without_input_and_output(room: str) -> None:
    """No socket, file, thread, clock of this computer or subprocess is imported where only data goes in and out."""
    forbidden = {"socket", "threading", "subprocess", "sqlite3", "serial", "urllib3", "asyncio", "selectors"}
    found = {
        (module, name)
        for module, tree in modules().items()
        if room_of(module) == room and module not in {"simulator.serve", "pipeline.link"}  # a port; a lock
        for node in ast.walk(tree)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
        + ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        if name.split(".")[0] in forbidden
    }
    assert not found


def test_no_comment_or_docstring_points_outside_the_repository() -> None:
    for path in [
        *(ROOT / "exporter").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "grafana").rglob("*.py"),
    ]:
        if path != Path(__file__):
            text = path.read_text()
            assert "design.md" not in text, path
            assert "domain.md" not in text, path

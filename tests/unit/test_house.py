"""The shape of the package, from its own imports: few rooms, few arrows between them, no circles, no large files."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import edgedeploy

PACKAGE = Path(edgedeploy.__file__).parent
LARGEST_LINES = 450


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("edgedeploy")


def room_of(module: str, inside: str) -> str:
    """The folder or module directly below ``inside`` that holds ``module``; ``inside`` itself for its own __init__."""
    rest = module.removeprefix(inside).strip(".")
    return rest.partition(".")[0] if rest else "__init__"


def arrows(graph: grimp.ImportGraph, inside: str) -> set[tuple[str, str]]:
    """(importer, imported) between the rooms below ``inside``."""
    modules = [module for module in graph.modules if f"{module}.".startswith(f"{inside}.")]
    pairs = {
        (room_of(module, inside), room_of(imported, inside))
        for module in modules
        for imported in graph.find_modules_directly_imported_by(module)
        if f"{imported}.".startswith(f"{inside}.")
    }
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def rooms(inside: Path) -> list[str]:
    return [path.name for path in inside.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]


def circle(pairs: Iterable[tuple[str, str]]) -> list[str] | None:
    below: dict[str, set[str]] = {}
    for importer, imported in pairs:
        below.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(below).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return None


def test_the_hall_has_few_rooms_and_few_arrows(graph: grimp.ImportGraph) -> None:
    assert len(rooms(PACKAGE)) <= 25
    assert len(arrows(graph, "edgedeploy")) <= 153


def test_the_runtime_has_few_rooms() -> None:
    assert len(rooms(PACKAGE / "runtime")) <= 13


def test_rooms_lean_on_each_other_one_way(graph: grimp.ImportGraph) -> None:
    packages = [name for name in graph.modules if graph.find_children(name)]
    found = {package: circle(arrows(graph, package)) for package in packages}
    assert {package: names for package, names in found.items() if names} == {}


def test_modules_import_each_other_in_no_circle(graph: grimp.ImportGraph) -> None:
    pairs = ((name, other) for name in graph.modules for other in graph.find_modules_directly_imported_by(name))
    assert circle(pairs) is None


def test_no_module_is_large() -> None:
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > LARGEST_LINES} == {}


def test_a_circle_is_found() -> None:
    assert circle([("a", "b"), ("b", "c")]) is None
    assert set(circle([("a", "b"), ("b", "c"), ("c", "a")]) or ()) == {"a", "b", "c"}

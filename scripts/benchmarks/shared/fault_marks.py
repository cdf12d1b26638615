"""The `fault` marks of the tests, read from their source: nothing is imported and nothing runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mark:
    """``simulated`` names what the test pretends; None when nothing is."""

    line: int
    test: str
    simulated: str | None


def marks(folder: Path) -> Iterator[Mark]:
    """The marks of all functions and classes below ``folder``."""
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = str(path.relative_to(folder.parent))
        for node in tree.body:
            yield from _marks_of(node, place)
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                yield from _marks_of(inner, f"{place}::{node.name}")


def _marks_of(node: ast.stmt, place: str) -> Iterator[Mark]:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            simulated = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}.get("simulated")
            for argument in decorator.args:
                yield Mark(int(ast.literal_eval(argument)), f"{place}::{node.name}", simulated)

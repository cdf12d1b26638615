"""What keeps the agent from boards' older Python and no type checker tells; the rest is said by ``scripts/check``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from edgedeploy import runtime

FOLDER = Path(runtime.__file__).parent


def evaluated_generics(source: str) -> list[int]:
    """Lines on which a class of ``collections.abc`` is given types outside annotations: a ``TypeError`` before Python 3.9.
    Annotations are never evaluated, thanks to ``from __future__ import annotations``."""
    tree = ast.parse(source)
    abstract = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "collections.abc"
        for name in node.names
    }
    annotations = [
        annotation
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.AST)
    ]
    unread = {id(node) for annotation in annotations for node in ast.walk(annotation)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in abstract
        if id(node) not in unread
    ]


def test_generics_are_told_from_annotations() -> None:
    source = "from collections.abc import Mapping, Sequence\ndef f(a: Mapping[str, int]) -> Sequence[int]: ...\n"
    assert evaluated_generics(source) == []
    assert evaluated_generics(source + "Feeds = Mapping[str, int]\nclass Row(Sequence[int]): ...\n") == [3, 4]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_the_agent_gives_abstract_classes_types_in_annotations_alone(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert evaluated_generics(source) == []

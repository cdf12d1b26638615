"""Small mistakes that somebody could make in a module: each mutant is the module with one of them.

Over the syntax tree: comparisons, arithmetic, `and` and `or`, `not`, numbers, truth values, `min` and `max`, what is
returned, `break`, statements that are left out. Annotations, docstrings and texts stay as they are: no test has to
know a sentence by heart.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Node = ast.AST
Change = Callable[[Any], Node | None]
"""What stands in a node's place; None for nothing to change. It may alter and return the (copied) node."""

SWAPPED: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """``place`` counts the nodes of the tree. ``function`` is the first line of the innermost function that is called with
    the mistake in it (of its decorators, where it has some), None for the module's own lines."""

    place: int
    kind: str
    line: int
    function: int | None
    text: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    lines = source.splitlines()
    found = []
    for place, node, function in _places(tree):
        for kind, change in CHANGES:
            if change(copy.deepcopy(node)) is not None:
                line = getattr(node, "lineno", 1)
                found.append(Mutant(place, kind, line, function, lines[line - 1].strip()))
    return found


def mutated(source: str, mutant: Mutant) -> str:
    """The module with the mistake."""
    tree = ast.parse(source)
    change = dict(CHANGES)[mutant.kind]
    node = next(node for place, node, _ in _places(tree) if place == mutant.place)
    new = change(copy.deepcopy(node))
    assert new is not None
    return ast.unparse(ast.fix_missing_locations(_Replaced(node, new).visit(tree)))


class _Replaced(ast.NodeTransformer):
    def __init__(self, old: Node, new: Node) -> None:
        self._old = old
        self._new = new

    def visit(self, node: Node) -> Any:
        return self._new if node is self._old else self.generic_visit(node)


def _places(tree: ast.Module) -> Iterator[tuple[int, Node, int | None]]:
    """Nodes that may change, each with its number and function."""
    count = 0
    waiting: list[tuple[Node, int | None]] = [(tree, None)]
    while waiting:
        node, function = waiting.pop(0)
        yield count, node, function
        count += 1
        inner = function
        if isinstance(node, ast.FunctionDef):
            inner = min([node.lineno, *(item.lineno for item in node.decorator_list)])
        waiting += [(child, inner) for name, child in _children(node) if not _kept(node, name, child)]


def _children(node: Node) -> Iterator[tuple[str, Node]]:
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield name, child


def _kept(node: Node, name: str, child: Node) -> bool:
    """Annotations, decorators, and texts that stand alone."""
    text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    return name in ("annotation", "returns", "decorator_list") or text


def _operators(node: Any) -> Node | None:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        node.ops = [SWAPPED[type(node.ops[0])]()]  # type: ignore[list-item]
        return node
    joined = (ast.BinOp, ast.BoolOp, ast.AugAssign)
    texts = isinstance(node, ast.BinOp) and any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right))
    if isinstance(node, joined) and type(node.op) in SWAPPED and not texts:
        node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
        return node
    return None


def _without_not(node: Any) -> Node | None:
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub)
    return node.operand if negated else None


def _numbers(node: Any) -> Node | None:
    if not isinstance(node, ast.Constant):
        return None
    if isinstance(node.value, bool):
        return ast.Constant(not node.value)
    return ast.Constant(node.value + 1) if isinstance(node.value, int | float) else None


def _names(node: Any) -> Node | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        node.id = NAMES[node.id]
        return node
    return None


def _returns(node: Any) -> Node | None:
    whole = isinstance(node, ast.Return) and node.value is not None
    return None if not whole or ast.unparse(node.value) == "None" else ast.Return(ast.Constant(None))


def _left_out(node: Any) -> Node | None:
    if isinstance(node, ast.Break):
        return ast.Continue()
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return ast.Pass() if call or isinstance(node, ast.Raise | ast.Continue) else None


def _other_branch(node: Any) -> Node | None:
    if not isinstance(node, ast.If | ast.IfExp):
        return None
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


CHANGES: Final[tuple[tuple[str, Change], ...]] = (
    ("operator", _operators),
    ("without not", _without_not),
    ("number", _numbers),
    ("name", _names),
    ("return", _returns),
    ("left out", _left_out),
    ("other branch", _other_branch),
)

"""How a study searches: its sampler, the user's own points, and combinations that are never proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgedeploy.errors import nearest
from edgedeploy.records.variant import Scalar
from edgedeploy.spec.scenarios import Table
from edgedeploy.spec.source import SpecSource

MAX_POINTS = 256
MOST_WEIGHED = 3
"""Objectives that co-design weighs; with more, a study has Optuna's Gaussian process."""


def _one(given: Any) -> Any:
    """Before a union is tried, each member of which would complain by its own name."""
    if isinstance(given, (list, tuple, dict)):
        raise ValueError(f"expected one value, but got a {'table' if isinstance(given, dict) else 'list'}")
    return given


def _one_or_several(given: Any) -> Any:
    if isinstance(given, dict) or (
        isinstance(given, (list, tuple)) and any(isinstance(v, (list, dict)) for v in given)
    ):
        raise ValueError("expected a value or a list of values")
    return tuple(given) if isinstance(given, list) else given


Point = dict[str, Annotated[Scalar, BeforeValidator(_one)]]
Combination = dict[str, Annotated[Scalar | tuple[Scalar, ...], BeforeValidator(_one_or_several)]]
Values = Mapping[str, Sequence[Scalar]]


class SearchTable(Table):
    """How variants are proposed."""

    sampler: Literal["co-design", "gp", "tpe", "nsga2", "random"] = "co-design"
    """Who proposes: edgedeploy's own sampler, which weighs all untried variants at once; or Optuna's Gaussian process, TPE,
    NSGA-II or chance. With more than three objectives, co-design is gp."""
    stop_gain: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The search ends before its budget when the best untried variant is expected to raise the front's hypervolume by less
    than this share, three proposals in a row and with 12 outcomes at least: 0.001 is a thousandth. 0 never ends it. Only
    co-design predicts that."""
    give_up: float = Field(default=0.001, ge=0.0, le=0.5)
    """The search ends when one limit is missed by all variants so far, and every untried one is expected to meet it with a
    probability below this, three proposals in a row and with 12 outcomes at least. 0 never ends it. Only co-design predicts
    that."""
    remeasure: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of budget.wall_clock that is kept for measuring again, after the search, variants of which the noise of times
    leaves open whether they are on the front. 0: nothing is measured again. Studies of one board."""
    warm_start: str | None = Field(default=None, min_length=1)
    """The folder of another board's study of the same task, relative to the study file: what it trained is taken over, and
    its variants are tried first."""
    more_boards: bool = False
    """Studies of other boards will begin with what this one trains (their warm_start). Multiply-accumulates count as one
    more objective when variants are proposed, so that models are trained that are small on any board. Needs co-design, with
    two objectives at most."""


def check_co_design(source: SpecSource, table: SearchTable, objectives: int) -> None:
    """Refuse what co-design alone does where something else proposes."""
    found = f"sampler = {table.sampler!r}" if table.sampler != "co-design" else f"{objectives} objectives"
    if table.stop_gain and (table.sampler != "co-design" or objectives > MOST_WEIGHED):
        remedy = f"Remove it; it needs co-design, which weighs up to {MOST_WEIGHED} objectives"
        raise source.error("search.stop_gain", f"nothing predicts a gain with {found}", remedy)
    asked = "give_up" in table.model_fields_set and table.give_up > 0
    if asked and (table.sampler != "co-design" or objectives > MOST_WEIGHED):
        remedy = f"Remove it; it needs co-design, which weighs up to {MOST_WEIGHED} objectives"
        raise source.error("search.give_up", f"nothing predicts that a limit is out of reach with {found}", remedy)
    if table.more_boards and (table.sampler != "co-design" or objectives >= MOST_WEIGHED):
        remedy = (
            f"Remove it; it needs co-design, which weighs multiply-accumulates beside {MOST_WEIGHED - 1} objectives"
        )
        raise source.error("search.more_boards", f"nothing weighs other boards with {found}", remedy)


def check_points(
    source: SpecSource, tries: Sequence[Point], never: Sequence[Combination], space: Values, targets: Sequence[str]
) -> None:
    """Refuse points and combinations that the space does not have, and points that are never proposed."""
    legal = {"target": tuple(targets), **space}
    named: list[tuple[str, Mapping[str, Scalar | tuple[Scalar, ...]]]] = [
        *((f"try[{index}]", point) for index, point in enumerate(tries)),
        *((f"never[{index}]", rule) for index, rule in enumerate(never)),
    ]
    for key, given in named:
        _check_point(source, key, given, legal)
    for index, point in enumerate(points_of(tries, legal)):
        for number, rule in enumerate(combinations_of(never, legal), 1):
            if all(name in point and point[name] in values for name, values in rule.items()):
                found_text = f"it is what [[never]] number {number} forbids"
                raise source.error(f"try[{index}]", found_text, "Remove one of the two")


def _check_point(source: SpecSource, key: str, point: Mapping[str, Scalar | tuple[Scalar, ...]], legal: Values) -> None:
    if not point:
        raise source.error(key, "it names no parameter", 'Give at least one, such as precision = "int8"')
    for name, given in point.items():
        if name not in legal:
            remedy = nearest(name, legal)
            raise source.error(f"{key}.{name}", f"the space has no parameter {name!r}", remedy)
        check_values(source, f"{key}.{name}", given, legal[name])


def check_values(source: SpecSource, key: str, given: Scalar | tuple[Scalar, ...], legal: Sequence[Scalar]) -> None:
    """Refuse values that the space does not list, and a list of none: no variant would ever match it."""
    if given == ():
        raise source.error(key, "the list of values is empty", f"Name some of: {', '.join(map(repr, legal))}")
    for value in _values(given):
        if listed(value, legal) is None:
            found = f"{value!r} is not among the values in the space"
            raise source.error(key, found, f"They are: {', '.join(map(repr, legal))}")


def points_of(tries: Sequence[Point], space: Values) -> tuple[dict[str, Scalar], ...]:
    """The user's points with values as the space lists them."""
    return tuple({name: _as_listed(value, space, name) for name, value in point.items()} for point in tries)


def combinations_of(never: Sequence[Combination], space: Values) -> tuple[dict[str, tuple[Scalar, ...]], ...]:
    """What is never proposed: from parameter to the values that are meant, as the space lists them."""
    return tuple(
        {name: tuple(_as_listed(value, space, name) for value in _values(given)) for name, given in rule.items()}
        for rule in never
    )


def _values(given: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return given if isinstance(given, tuple) else (given,)


def _as_listed(value: Scalar, space: Values, name: str) -> Scalar:
    found = listed(value, space.get(name, ()))
    return value if found is None else found


def listed(value: Scalar, legal: Sequence[Scalar]) -> Scalar | None:
    """The listed value that is meant: 1 is 1.0, and 0.3 is the third step of 0.1."""
    for item in legal:
        if type(item) is type(value) and item == value:
            return item
        numbers = not isinstance(item, (bool, str)) and not isinstance(value, (bool, str))
        if numbers and abs(float(item) - float(value)) < 1e-9:
            return item
    return None

"""Conditions between parameters: one that matters only where others have certain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from edgedeploy.errors import nearest
from edgedeploy.records.conditions import Condition
from edgedeploy.records.variant import Scalar
from edgedeploy.spec.scenarios import Table
from edgedeploy.spec.search import Combination, Point, Values, check_values, combinations_of, listed, points_of
from edgedeploy.spec.source import SpecSource


class OnlyTable(Table):
    """A parameter that matters only where others have certain values. Elsewhere it has the baseline's value, so that no
    variant is tried twice under different names. Several tables of one parameter have to hold together."""

    parameter: str | tuple[str, ...] = Field(min_length=1)
    """The parameter of the space, or several, that it is about."""
    when: Combination = Field(min_length=1)
    """From other parameters to a value or a list of values: all of them have to match. A precision counts as the target
    builds it."""

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.parameter,) if isinstance(self.parameter, str) else self.parameter


def conditions_of(tables: Sequence[OnlyTable], space: Values) -> tuple[Condition, ...]:
    """The conditions of a study file that was checked, each after those of the parameters that it asks for."""
    left = [Condition(name, combinations_of((table.when,), space)[0]) for table in tables for name in table.parameters]
    ordered: list[Condition] = []
    while left:
        open_names = {item.parameter for item in left}
        ready = [item for item in left if not open_names & {*item.when} - {item.parameter}]
        ordered += ready
        left = [item for item in left if item not in ready]
        if not ready:
            raise ValueError(f"conditions ask for each other: {', '.join(sorted(open_names))}")
    return tuple(ordered)


def check_conditions(
    source: SpecSource,
    tables: Sequence[OnlyTable],
    tries: Sequence[Point],
    space: Values,
    targets: Sequence[str],
    usual: Mapping[str, Scalar],
) -> None:
    """Refuse conditions on what the space does not have, that always hold or hang on themselves, and points of the user's
    own that give a value to a parameter that does not matter there. ``usual`` has the values that a target and parameters
    take where a point does not name them, as far as they are known: what hangs on the task's is left to
    :func:`check_tries`."""
    legal = {"target": tuple(targets), **space}
    for index, table in enumerate(tables):
        for name in table.parameters:
            if name not in space:
                found = "a target is always chosen" if name == "target" else f"the space has no parameter {name!r}"
                raise source.error(f"only[{index}].parameter", found, nearest(name, space))
            if name in table.when:
                raise source.error(f"only[{index}].when.{name}", f"{name} would hang on itself", "Remove it")
        _check_when(source, f"only[{index}].when", table.when, legal)
    _check_together(source, tables, legal)
    try:
        conditions = conditions_of(tables, legal)
    except ValueError as exc:
        raise source.error("only", str(exc), "Remove one of them") from None
    check_tries(source, conditions, points_of(tries, legal), usual)


def check_tries(
    source: SpecSource,
    conditions: Sequence[Condition],
    tries: Sequence[Mapping[str, Scalar]],
    usual: Mapping[str, Scalar],
) -> None:
    """Refuse points of the user's own that give a value to a parameter that does not matter there, as far as ``usual`` has
    the values of what they do not name."""
    for index, point in enumerate(tries):
        for condition in conditions:
            there = {**usual, **point}
            if condition.parameter in point and not condition.among(there).holds(there):
                found = f"{condition.parameter} matters only {condition.text}"
                raise source.error(
                    f"try[{index}].{condition.parameter}", found, "Name these values too, or leave it out"
                )


def _check_together(source: SpecSource, tables: Sequence[OnlyTable], legal: Values) -> None:
    """Refuse two tables of one parameter of which never both hold: it would be the baseline's everywhere, unsaid."""
    rules = combinations_of([table.when for table in tables], legal)
    for index, (table, rule) in enumerate(zip(tables, rules, strict=True)):
        for number, (other, before) in enumerate(zip(tables[:index], rules[:index], strict=True), 1):
            shared = set(table.parameters) & set(other.parameters)
            apart = [name for name in rule if name in before and not set(rule[name]) & set(before[name])]
            if shared and apart:
                name = apart[0]
                both = ", ".join(map(repr, [*before[name], *rule[name]]))
                found = f"with [[only]] number {number} it never holds: tables of one parameter have to hold together"
                remedy = f"Where either is meant, write one table with {name} = [{both}]"
                raise source.error(f"only[{index}].when.{name}", found, remedy)


def _check_when(source: SpecSource, key: str, when: Combination, legal: Values) -> None:
    always = True
    for name, given in when.items():
        if name not in legal:
            raise source.error(f"{key}.{name}", f"the space has no parameter {name!r}", nearest(name, legal))
        check_values(source, f"{key}.{name}", given, legal[name])
        values = given if isinstance(given, tuple) else (given,)
        always = always and all(any(listed(v, (item,)) is not None for v in values) for item in legal[name])
    if always:
        raise source.error(key, "it holds for all values of the space", "Remove it, or name fewer values")

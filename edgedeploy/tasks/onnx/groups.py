"""Which cases of a bare ONNX study belong together: a CSV table with the columns ``image,group``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import Case
from edgedeploy.tasks.pictures.table import inside, read_table


def table_name(given: object) -> str:
    """The option ``groups``. Raises ``SpecError`` for what is no text."""
    if not isinstance(given, str):
        raise SpecError("task.options.groups", f"got {given!r}", "Name a CSV file with the columns image,group")
    return given


def groups_by_case(base: Path, table: str, cases: Iterable[Case]) -> dict[Case, str]:
    """The group of each case that the table names, by its name (``0001.png``) or with its split before it
    (``selection/0001.png``); empty when there is no table. Raises ``DataError`` for a table that names no case, and for a
    group on two sides."""
    if not table:
        return {}
    path = inside(base, table, "task.options.groups")
    named = {row["image"]: row["group"] for _, row in read_table(path, ("image", "group"))}
    found: dict[Case, str] = {}
    for case in cases:
        group = named.get(case.id) or named.get(case.id.partition("/")[2])
        if group is not None:
            found[case] = group
    if not found:
        raise DataError(f"groups in {path}", "the table names none of the cases", "Name them as the files are named")
    sides: dict[str, Case] = {}
    for case, group in found.items():
        other = sides.setdefault(group, case)
        if other.split != case.split:
            raise DataError(
                f"splits that share no group of {path}",
                f"{other.id} and {case.id} are of one group",
                "Give calibration, selection and confirmation a folder each, with whole groups",
            )
    return found

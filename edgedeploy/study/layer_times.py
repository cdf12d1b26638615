"""The layer times of a study, kept in its folder under their digest (taken by :mod:`edgedeploy.study.times_taker`).

Widths by time are chosen by them, so they are part of what such a variant is. They are never replaced: a resumed study goes
on with those of its folder, and one that is begun from another board's study with those that name the models it takes over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import DataError
from edgedeploy.files import write_json
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.variant import BY_TIME
from edgedeploy.search.space import Space
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.reading import read_record

AGAIN: Final = "Put a copy of it back, or begin again in another --out: other times are other widths"


def wants_times(space: Space) -> bool:
    return BY_TIME in space.parameters.get("allocation", ())


def with_times(space: Space, times: LayerTimes | None) -> Space:
    """The space whose widths by time are those of ``times``; without any they stand for variants that are refused."""
    return replace(space, choices=replace(space.choices, layer_times=times.digest if times else ""))


def kept_times(root: Path) -> LayerTimes | None:
    """The layer times in a study's folder; None before they are taken. Raises ``DataError`` for a damaged file."""
    path = root / LAYER_TIMES
    return read_record(path, LayerTimes.read, AGAIN) if path.is_file() else None


def keep_times(root: Path, times: LayerTimes, named: Collection[str]) -> None:
    """Write down what was taken. ``named`` are the digests that variants of the folder have: raises ``DataError`` where
    theirs are others, whose file is gone."""
    if named and times.digest not in named:
        found = f"it is gone; variants here have the times {', '.join(sorted(named))}, a baseline now {times.digest}"
        raise DataError(f"study file {root / LAYER_TIMES}", found, AGAIN)
    write_json(root / LAYER_TIMES, times.as_json())

"""The variants that a search chooses from, each once whatever parameters stand for it, and their columns for a surrogate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.space import ENUMERATION_LIMIT, Space

Params = dict[str, Scalar]
Floats = NDArray[np.float64]

SAMPLE: Final = 4096
"""Random variants of a space that is too large to be enumerated; neighbours of the front join them."""

WORK: Final = "macs"
"""The static figure that says how much a variant computes."""


@dataclass(frozen=True)
class Column:
    """One parameter. ``places`` are positions of its values on a line from 0 to 1 where they are ordered, else None."""

    name: str
    values: tuple[Scalar, ...]
    places: tuple[float, ...] | None


class Candidates:
    """All canonical variants of ``space``, by digest. Of a space with more than ``ENUMERATION_LIMIT`` combinations: a random
    sample that depends on ``seed`` alone, and what :meth:`add` and :meth:`add_neighbours` were told.

    A row is a candidate's place in :attr:`variants` and :attr:`params`; it never changes. The first
    :attr:`at_first` rows do not hang on what was told.
    """

    def __init__(self, space: Space, knowledge: Knowledge, seed: int) -> None:
        self.space = space
        self.variants: list[Variant] = []
        self.params: list[Params] = []
        self._statics_of = knowledge.statics
        self._rows: dict[str, int] = {}
        self._names = ("target", *space.parameters)
        self._levels: list[dict[Scalar, int]] = [
            {_level(value): code for code, value in enumerate(values)}
            for values in (space.targets, *space.parameters.values())
        ]
        self._codes: list[tuple[int, ...]] = []
        self._statics: list[Mapping[str, float]] = []
        self.whole = space.size() <= ENUMERATION_LIMIT
        for params in space.combinations() if self.whole else _sample(space, seed):
            if space.allows(params):
                self.add(params)
        self.at_first = len(self)

    def __len__(self) -> int:
        return len(self.variants)

    def add(self, params: Mapping[str, Scalar]) -> int:
        """The row of the variant of ``params``, which becomes a candidate if it is none."""
        params = self.space.settled(params)
        variant = self.space.variant(params)
        row = self._rows.get(variant.digest)
        if row is None:
            row = self._rows[variant.digest] = len(self.variants)
            self.variants.append(variant)
            self.params.append(params)
            self._codes.append(self._code(variant, params))
            self._statics.append(self._statics_of(variant))
        return row

    def add_neighbours(self, params: Mapping[str, Scalar]) -> None:
        """Variants that differ from ``params`` in one parameter become candidates, where the space is not enumerated."""
        if not self.whole:
            for near in self.space.neighbours(params):
                if self.space.allows(near):
                    self.add(near)

    def rows(self, digests: Iterable[str]) -> list[int]:
        """The rows of those among ``digests`` that are candidates."""
        return [self._rows[digest] for digest in digests if digest in self._rows]

    def columns(self) -> tuple[Column, ...]:
        """The columns of :meth:`codes`: target and parameters."""
        return tuple(
            Column(name, tuple(levels), _places(tuple(levels)))
            for name, levels in zip(self._names, self._levels, strict=True)
        )

    def codes(self) -> NDArray[np.intp]:
        """Shape (candidates, columns): which of its column's values each candidate has."""
        return np.array(self._codes, dtype=np.intp).reshape(len(self._codes), len(self._names))

    def statics(self) -> Floats:
        """Shape (candidates, static figures): their logarithms, NaN where a figure is missing or not positive."""
        names = sorted({name for figures in self._statics for name in figures})
        found = np.array([[figures.get(name, np.nan) for name in names] for figures in self._statics], dtype=float)
        return _logarithms(found.reshape(len(self._statics), len(names)))

    def work(self) -> Floats:
        """Shape (candidates,): logarithms of multiply-accumulates, NaN where they are unknown."""
        return _logarithms(np.array([figures.get(WORK, np.nan) for figures in self._statics], dtype=float))

    def _code(self, variant: Variant, params: Mapping[str, Scalar]) -> tuple[int, ...]:
        """Of canonical values where the variant has them: a precision that the target lacks is what is built instead."""
        facts = variant.as_json()
        facts |= {"max_batch": variant.max_batch, **facts["arch"]}
        found = []
        for name, levels in zip(self._names, self._levels, strict=True):
            given = params.get(name, "")
            value = facts.get(name, given)
            if not isinstance(value, Scalar) or str(value) == str(given):
                value = given  # a variant keeps a tile's side as text: numbers are ordered
            found.append(levels.setdefault(_level(value), len(levels)))
        return tuple(found)


def _logarithms(figures: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(figures > 0, np.log(figures), np.nan)


def _sample(space: Space, seed: int) -> Iterable[Params]:
    rng = np.random.default_rng([seed, SAMPLE])
    values = [space.targets, *space.parameters.values()]
    for _ in range(SAMPLE):
        yield dict(zip(("target", *space.parameters), (_one(items, rng) for items in values), strict=True))


def _level(value: Scalar) -> Scalar:
    """True is not 1, which Python takes for equal."""
    return str(value) if isinstance(value, bool) else value


def _one(values: Sequence[Scalar], rng: np.random.Generator) -> Scalar:
    return values[int(rng.integers(len(values)))]


def _places(values: Sequence[Scalar]) -> tuple[float, ...] | None:
    """Numbers are ordered, by their logarithms where they span more than a factor of four."""
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    if len(numbers) < len(values) or len(numbers) < 3:
        return None
    line = np.array(numbers)
    if line.min() == 0 and line.max() >= 4:
        line = np.log1p(line)
    elif line.min() > 0 and line.max() > 4 * line.min():
        line = np.log(line)
    return tuple((line - line.min()) / (line.max() - line.min()))

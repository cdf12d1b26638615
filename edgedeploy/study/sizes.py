"""How large the variants of a space are, for its search alone: as the task says, or found of some architectures and
estimated of all others."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.compress.sizes import size_of
from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.interfaces.task import Sized, Task
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar, Variant

if TYPE_CHECKING:
    from edgedeploy.search.space import Space

LOG: Final = logging.getLogger(__name__)

MOST_ARCHITECTURES: Final = 64
"""Architectures that are built to see how large they are, at most: each takes part of a second."""

STUDENTS: Final = 16
"""Students that are built besides, at most."""

DRAWS_EACH: Final = 20
"""Points of a space that are drawn for each architecture wanted, at most: others may be forbidden, or drawn before."""

MOST_ERROR: Final = 0.1
"""Of a figure that is estimated: with more, a search finds less with it than without."""

_PULL: Final = 1e-3
"""Of every value's share towards nothing, so that what was not drawn has one too."""

_BITS: Final[Mapping[str, int]] = {
    **{"bfloat16": 16, "float16": 16, "int8": 8, "int8-dynamic": 8},
    **{"int8-weights": 8, "int4-weights": 4},
}
_FLOAT_BITS: Final = 32

Floats = NDArray[np.float64]
Arch = tuple[tuple[str, Scalar], ...]
Figures = Mapping[str, float]


class Sizes:
    """Estimates of how large variants are, for the search alone: a width keeps its square of what the whole architecture
    has, and of a transformer what it leaves out is taken from it. They are no result and stand nowhere.

    Of a space with more architectures than ``MOST_ARCHITECTURES`` so many are drawn and built, the same ones each time, and
    figures of the others are estimated from them, if they can be. Nothing is built or estimated where the task itself tells
    figures (:class:`edgedeploy.interfaces.task.Sized`). Raises ``SpecError`` where what it tells is no figures.
    """

    def __init__(self, task: Task, space: Space) -> None:
        self._task = task
        self._space = space
        self._known: dict[tuple[Arch, str], Figures] = {}
        self._built = 0
        if isinstance(task, Sized):  # what is wrong with its figures is told before anything is searched
            self.of(space.baseline_variant(space.targets[0]))

    def of(self, variant: Variant) -> dict[str, float]:
        kept = variant.width**2 * _kept(variant.shrink)
        found = {name: value * kept for name, value in self._whole(variant).items()}
        if "depth" in found:  # neither a width nor a rank takes a layer away
            found["depth"] *= variant.shrink.depth / kept
        if "macs" in found:
            found["macs"] *= (1 + 2 * variant.shrink.tokens) / 3  # a third of the blocks sees all tokens
        if "parameters" in found:
            found["bytes"] = found["parameters"] * _BITS.get(variant.precision, _FLOAT_BITS) / 8
        return found

    def _whole(self, variant: Variant) -> Figures:
        """Of the variant's architecture, or of its student, which is a network of its own."""
        network = variant.arch, variant.shrink.student
        if network not in self._known:
            student = variant.shrink.student
            if not student and isinstance(self._task, Sized):
                self._known[network] = _told(self._task, variant.arch)
            elif not student and self._estimated is not None:
                self._known.setdefault(network, self._estimated.of(variant.arch))
            else:
                self._known[network] = self._size_of(variant.arch, *filter(None, [student]))
        return self._known[network]

    def _size_of(self, arch: Arch, *student: str) -> Figures:
        if self._built >= MOST_ARCHITECTURES + (STUDENTS if student else 0):
            return {}
        self._built += 1
        return size_of(self._task, dict(arch), *student)

    @cached_property
    def _estimated(self) -> Estimates | None:
        """From some architectures, where there are more than are built; None where there are not."""
        space = self._space
        names = [name for name in space.parameters if name in space.arch_defaults]
        if math.prod(len(space.parameters[name]) for name in names) <= MOST_ARCHITECTURES:
            return None
        found = {arch: self._size_of(arch) for arch in _drawn(space)}
        estimates = Estimates(found)
        for arch, sized in found.items():  # a figure that the others lack would set these apart
            self._known[arch, ""] = {name: value for name, value in sized.items() if name in estimates.names}
        return estimates


def _told(task: Sized, arch: Arch) -> Figures:
    asked = f"figures({', '.join(f'{name} = {value!r}' for name, value in arch)}) of the task"
    remedy = "Return a dict of positive numbers by name, the same names for each architecture"
    try:
        told: object = task.figures(**dict(arch))
    except EdgeDeployError:
        raise
    except Exception as exc:  # the user's own code
        raise SpecError(asked, f"it raised {type(exc).__name__}: {exc}", remedy) from exc
    found: list[tuple[Any, Any]] = list(told.items()) if isinstance(told, Mapping) else [(None, told)]
    figures = {name: float(value) for name, value in found if isinstance(name, str) and _is_figure(value)}
    if len(figures) < len(found):
        raise SpecError(asked, f"got {repr(told)[:160]}", remedy)
    return figures


def _is_figure(value: Any) -> bool:
    """A positive number of Python's or NumPy's, which has to fit in a float: an integer of hundreds of digits does not."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
    except OverflowError:
        return False


def _drawn(space: Space) -> Sequence[Arch]:
    """``MOST_ARCHITECTURES`` of the space, fewer where they are hard to find; that of the baseline first."""
    rng = np.random.default_rng(MOST_ARCHITECTURES)
    found = {space.baseline_variant(space.targets[0]).arch: None}
    for _ in range(DRAWS_EACH * MOST_ARCHITECTURES):
        params = {name: values[int(rng.integers(len(values)))] for name, values in space.parameters.items()}
        params = space.settled({"target": space.targets[int(rng.integers(len(space.targets)))], **params})
        if space.allows(params):
            found[space.variant(params).arch] = None
        if len(found) == MOST_ARCHITECTURES:
            break
    return list(found)


class Estimates:
    """Figures of architectures, by those of ``found``: what each value of each parameter adds to a figure, or what it
    multiplies the figure by, whichever foretells each of ``found`` better from the others (ridge regression; errors of what
    is left out in closed form: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10)."""

    def __init__(self, found: Mapping[Arch, Figures]) -> None:
        sized = {arch: figures for arch, figures in found.items() if figures}
        self._columns: dict[tuple[str, Scalar], int] = {}
        for arch in sized:
            for value in arch:
                self._columns.setdefault(value, len(self._columns) + 1)
        design = np.array([self._row(arch) for arch in sized]).reshape(len(sized), len(self._columns) + 1)
        positive = [{name for name, value in figures.items() if value > 0} for figures in sized.values()]
        names = set.intersection(*positive) if positive else set()
        fitted = {name: _fit(design, np.array([figures[name] for figures in sized.values()])) for name in sorted(names)}
        for name, fit in fitted.items():
            told = "%s of %d architectures foretells the others' with a median error of %.1f %%"
            LOG.info(told, name, len(sized), 100 * fit.error)
        self._fitted = {name: fit for name, fit in fitted.items() if fit.error <= MOST_ERROR}

    @property
    def names(self) -> frozenset[str]:
        """Of the figures that are estimated with a median error of at most ``MOST_ERROR``; the others are left out."""
        return frozenset(self._fitted)

    def of(self, arch: Arch) -> Figures:
        """Empty where none of ``found`` had a size. A sum is no smaller than half of the smallest that was found."""
        row = self._row(arch)
        return {name: fitted.at(row) for name, fitted in self._fitted.items()}

    def _row(self, arch: Arch) -> Floats:
        row = np.zeros(len(self._columns) + 1)
        row[0] = 1.0
        row[[self._columns[value] for value in arch if value in self._columns]] = 1.0
        return row


@dataclass(frozen=True)
class _Fitted:
    """``shares`` of a figure, which is at least ``least``, or of its logarithm where it is ``multiplied``; ``error``: the
    median of what was left out and foretold, as a logarithm of found over foretold."""

    shares: Floats
    multiplied: bool
    least: float
    error: float

    def at(self, row: Floats) -> float:
        found = float(row @ self.shares)
        return math.exp(found) if self.multiplied else max(found, self.least)


def _fit(design: Floats, figures: Floats) -> _Fitted:
    pull = _PULL * np.eye(design.shape[1])
    pull[0, 0] = 0.0
    inverse = np.linalg.pinv(design.T @ design + pull)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    least, kinds = float(figures.min()) / 2, []
    for multiplied in (False, True):
        targets: Any = np.log(figures) if multiplied else figures
        shares = inverse @ design.T @ targets
        foretold = targets - (targets - design @ shares) / np.maximum(1 - leverage, 1e-6)
        foretold = np.exp(foretold) if multiplied else np.maximum(foretold, least)
        kinds.append(_Fitted(shares, multiplied, least, float(np.median(np.abs(np.log(foretold / figures))))))
    return min(kinds, key=lambda kind: kind.error)


def _kept(shrink: Shrink) -> float:
    """Of a transformer's weights: a third is attention's, two thirds are the MLPs'."""
    return shrink.depth * (shrink.heads + 2 * shrink.mlp) / 3 * min(1.0, 4 / 3 * shrink.rank)

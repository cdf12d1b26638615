"""A Gaussian process over a finite set of candidates: what a search expects of variants that nobody has evaluated.

Its kernel is a sum of one kernel for each parameter (equal or not; Ornstein-Uhlenbeck where values are ordered), their
product, and a squared-exponential kernel over the logarithms of static figures. All three are made of matrix products with
tables of the parameters' values, so that thousands of candidates cost milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.candidates import Column

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

STEPS: Final = 40
"""Steps of the optimiser of the marginal likelihood, at most."""

AT_ONCE: Final = 1024
"""Candidates that are predicted at once: what is between them and the observations stays in the processor's cache."""

UNEXPLAINED: Final = 0.05
"""What a candidate is first thought to have of its own, that none of its parameters and figures explain: a standard
deviation, in standard deviations of all observations."""

_ORDERED_LENGTH: Final = 0.5
_JITTER: Final = 1e-8


@dataclass(frozen=True)
class Features:
    """Candidates as a Gaussian process sees them: ``codes`` of the columns' values, shape (candidates, columns), and
    standardised ``statics``, shape (candidates, figures)."""

    columns: tuple[Column, ...]
    codes: NDArray[np.intp]
    statics: Floats

    @classmethod
    def of(
        cls, columns: Sequence[Column], codes: NDArray[np.intp], statics: Floats, first: int | None = None
    ) -> Features:
        """Columns and figures that are the same for all candidates are left out; missing figures are the mean. Only the
        ``first`` candidates are looked at for that: with those that join later, the rest keeps its features."""
        some = codes[:first]
        kept = [index for index in range(len(columns)) if np.any(some[:, index] != some[:1, index])]
        return cls(tuple(columns[index] for index in kept), codes[:, kept], _standardised(statics, first))

    @cached_property
    def _indicators(self) -> Singles:
        """Shape (candidates, all columns' values): 1 where the candidate has the value."""
        offsets = np.cumsum([0, *(len(column.values) for column in self.columns)])
        found = np.zeros((len(self.codes), int(offsets[-1])), dtype=np.float32)
        for index, offset in enumerate(offsets[:-1]):
            found[np.arange(len(self.codes)), offset + self.codes[:, index]] = 1
        return found

    @cached_property
    def tables(self) -> list[tuple[Floats, Floats]]:
        """For each column, between its values: (likeness of the additive kernel, distance of the product's)."""
        return [_table(column) for column in self.columns]

    @cached_property
    def counts(self) -> Floats:
        """How often each value occurs among the columns that have the same values to choose from, standardised: shape
        (candidates, counts). Which operation an edge has may matter less than how many of them there are."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, column in enumerate(self.columns):
            groups.setdefault(column.values, []).append(index)
        found = [
            (self.codes[:, indices] == code).sum(axis=1)
            for values, indices in groups.items()
            if len(indices) > 1
            for code in range(len(values))
        ]
        return _standardised(np.array(found, dtype=float).reshape(len(found), len(self.codes)).T, None)

    def between(self, rows: NDArray[np.intp], weights: Sequence[Floats], part: slice = slice(None)) -> Singles:
        """Sum over columns of ``weights`` between the column's values: shape (candidates in ``part``, rows)."""
        if not self.columns:
            return np.zeros((len(self.codes[part]), len(rows)), dtype=np.float32)
        stacked = [table[:, self.codes[rows, index]] for index, table in enumerate(weights)]
        return self._indicators[part] @ np.concatenate(stacked).astype(np.float32)

    def nearness(self, rows: NDArray[np.intp], rates: Sequence[float], part: slice = slice(None)) -> Singles:
        """exp(-sum of rate times distance) of every candidate in ``part`` to ``rows``."""
        tables = [-rate * distance for (_, distance), rate in zip(self.tables, rates, strict=True)]
        return np.exp(self.between(rows, tables, part))


@dataclass(frozen=True)
class _Settings:
    """Logarithms of: weight of each column's kernel, rate of each in the product, weight of the product, weight and lengths
    of the static kernel, variance of what is unexplained. ``layout`` slices them out of one vector."""

    columns: int
    figures: int

    @property
    def size(self) -> int:
        return 2 * self.columns + 3 + self.figures

    def parts(self, vector: Floats) -> tuple[Floats, Floats, float, float, Floats, float]:
        p = self.columns
        values = np.exp(vector)
        return values[:p], values[p : 2 * p], values[2 * p], values[2 * p + 1], values[2 * p + 3 :], values[2 * p + 2]

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each logarithm before anything is observed."""
        p, figures = max(self.columns, 1), self.figures
        mean = [math.log(0.5 / p)] * self.columns + [math.log(2.0 / p)] * self.columns
        mean += [math.log(0.3), math.log(0.5), 2 * math.log(UNEXPLAINED)] + [0.0] * figures
        spread = [1.0] * (2 * self.columns) + [1.0, 1.0, 2.0] + [0.7] * figures
        return np.array(mean), np.array(spread)


@dataclass(frozen=True)
class Process:
    """A fitted Gaussian process: observations at ``rows`` of ``features`` with the values ``targets``."""

    features: Features
    rows: NDArray[np.intp]
    targets: Floats
    variances: Floats
    vector: Floats

    def predict(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of every candidate's value, what nothing explains of it included: that is as much
        its own as the rest. The noise of an observation is not."""
        from scipy.linalg import solve_triangular

        lower = self._lower
        centre, scale = self._scaling
        root = solve_triangular(lower, np.eye(len(lower)), lower=True)
        weights = (root.T @ (root @ ((self.targets - centre) / scale))).astype(np.float32)
        turned = root.T.astype(np.float32)
        count = len(self.features.codes)
        mean, explained = np.empty(count), np.empty(count)
        for start in range(0, count, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            cross = self._cross(part)
            mean[part] = cross @ weights
            explained[part] = np.square(cross @ turned).sum(axis=1)
        left = np.maximum(self._own - explained, 1e-6)
        return centre + scale * mean, scale * np.sqrt(left)

    def also(self, rows: Sequence[int], values: Floats) -> Process:
        """With further observations and the same settings."""
        return Process(
            self.features,
            np.append(self.rows, np.asarray(rows, dtype=np.intp)),
            np.append(self.targets, values),
            np.append(self.variances, np.zeros(len(rows))),
            self.vector,
        )

    @property
    def _scaling(self) -> tuple[float, float]:
        return _scaling(self.targets)

    @property
    def _settings(self) -> _Settings:
        return _Settings(len(self.features.columns), self.features.statics.shape[1])

    @property
    def _own(self) -> float:
        """The variance of any candidate before anything is observed."""
        adding, _, product, static, _, unexplained = self._settings.parts(self.vector)
        return float(adding.sum() + product + (static if self._settings.figures else 0.0) + unexplained)

    @cached_property
    def _lower(self) -> Floats:
        blocks = _Blocks.of(self.features, self.rows)
        _, scale = self._scaling
        noise = self.variances / scale**2
        kernel = blocks.kernel(self._settings, self.vector)[0]
        unexplained = self._settings.parts(self.vector)[5]
        return np.asarray(np.linalg.cholesky(kernel + np.diag(noise + unexplained + _JITTER)), dtype=float)

    def _cross(self, part: slice) -> Singles:
        adding, rates, product, static, lengths, _ = self._settings.parts(self.vector)
        features, rows = self.features, self.rows
        sums = [weight * likeness for (likeness, _), weight in zip(features.tables, adding, strict=True)]
        found = features.between(rows, sums, part)
        found += np.float32(product) * features.nearness(rows, tuple(rates), part)
        if self._settings.figures:
            scaled = (features.statics / lengths).astype(np.float32)
            norms = 0.5 * np.square(scaled).sum(axis=1)
            distance = scaled[part] @ scaled[rows].T - norms[part, None] - norms[rows]
            found += np.float32(static) * np.exp(np.minimum(distance, 0))
        return found


@dataclass(frozen=True)
class _Blocks:
    """What the kernel between observations is made of: likenesses and distances by column, squared distances by figure."""

    likenesses: Floats
    distances: Floats
    squares: Floats

    @classmethod
    def of(cls, features: Features, rows: NDArray[np.intp]) -> _Blocks:
        n = len(rows)
        codes, statics = features.codes[rows], features.statics[rows]
        pairs = [np.ix_(codes[:, index], codes[:, index]) for index in range(len(features.columns))]
        tables = list(zip(features.tables, pairs, strict=True))
        likenesses = np.array([like[pair] for (like, _), pair in tables]).reshape(-1, n * n)
        distances = np.array([far[pair] for (_, far), pair in tables]).reshape(-1, n * n)
        squares = np.square(statics[:, None, :] - statics[None, :, :]).transpose(2, 0, 1).reshape(-1, n * n)
        return cls(likenesses, distances, squares)

    def kernel(self, settings: _Settings, vector: Floats) -> tuple[Floats, Floats, Floats]:
        """The kernel without noise, and its product's and its static part; each of shape (n, n)."""
        adding, rates, product, static, lengths, _ = settings.parts(vector)
        n = math.isqrt(self.distances.shape[1] or self.squares.shape[1])
        multiplied = product * np.exp(-(rates @ self.distances)).reshape(n, n)
        smooth = np.zeros((n, n))
        if settings.figures:
            smooth = static * np.exp(-0.5 * (lengths**-2.0 @ self.squares)).reshape(n, n)
        return (adding @ self.likenesses).reshape(n, n) + multiplied + smooth, multiplied, smooth


def fit(features: Features, rows: NDArray[np.intp], targets: Floats, variances: Floats) -> Floats:
    """Logarithms of the kernel's settings at the largest posterior density, from the prior's mean: the same for the same
    observations. ``targets`` with their ``variances`` were observed at ``rows``."""
    from scipy.optimize import minimize

    settings = _Settings(len(features.columns), features.statics.shape[1])
    mean, spread = settings.prior
    centre, scale = _scaling(targets)
    blocks = _Blocks.of(features, rows)
    arguments = (settings, blocks, (targets - centre) / scale, variances / scale**2)
    bounds = list(zip(mean - 4 * spread, mean + 4 * spread, strict=True))

    def loss(vector: Floats) -> tuple[float, Floats]:
        return _loss(vector, *arguments)

    found = minimize(loss, mean, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return np.asarray(found.x if np.all(np.isfinite(found.x)) else mean, dtype=float)


def _loss(vector: Floats, settings: _Settings, blocks: _Blocks, targets: Floats, noise: Floats) -> tuple[float, Floats]:
    """Minus the logarithm of likelihood times prior, and its gradient."""
    from scipy.linalg import lapack

    mean, spread = settings.prior
    adding, rates, _, _, lengths, unexplained = settings.parts(vector)
    kernel, multiplied, smooth = blocks.kernel(settings, vector)
    diagonal = np.einsum("ii->i", kernel)
    diagonal += noise + unexplained + _JITTER
    lower, failed = lapack.dpotrf(kernel, lower=1)
    if failed:
        return 1e10, np.zeros_like(vector)
    inverse, _ = lapack.dpotri(lower, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = inverse @ targets
    away = (vector - mean) / spread
    loss = 0.5 * targets @ weights + float(np.log(np.diag(lower)).sum()) + 0.5 * float(away @ away)
    pull = 0.5 * (inverse - np.outer(weights, weights))
    by_product, by_smooth = (pull * multiplied).ravel(), (pull * smooth).ravel()
    slopes = [
        adding * (blocks.likenesses @ pull.ravel()),
        -rates * (blocks.distances @ by_product),
        [by_product.sum(), by_smooth.sum(), unexplained * np.trace(pull)],
        lengths**-2.0 * (blocks.squares @ by_smooth) if settings.figures else [],
    ]
    return float(loss), np.concatenate([np.asarray(part, dtype=float) for part in slopes]) + away / spread


def _table(column: Column) -> tuple[Floats, Floats]:
    if column.places is None:
        same = np.eye(len(column.values))
        return same, 1 - same
    places = np.array(column.places)
    distance = np.abs(places[:, None] - places)
    return np.exp(-distance / _ORDERED_LENGTH), distance


def _scaling(targets: Floats) -> tuple[float, float]:
    return float(targets.mean()), float(targets.std()) or 1.0


def _standardised(statics: Floats, first: int | None) -> Floats:
    """Figures with two different values at least, as differences from their mean in standard deviations."""
    found: list[Any] = []
    for figure in statics.T:
        present = figure[:first][np.isfinite(figure[:first])]
        if len(present) and present.std() > 1e-12:
            found.append(np.where(np.isfinite(figure), (figure - present.mean()) / present.std(), 0.0))
    return np.array(found).T.reshape(len(statics), len(found))

"""An entropy coder for many small integers: interleaved rANS, vectorised over lanes by numpy.

Duda, "Asymmetric numeral systems", 2013, with the states of many lanes side by side (Giesen, "Interleaved entropy coders",
2014): a state has 32 bits, words have 16, frequencies sum to 2^12. All of it is arithmetic of integers, so a stream decodes
to the same symbols on every machine.

The numbers of one array are cut into runs, a run a lane. What frequencies a symbol is coded with depends on the sizes of
those before it in its lane: large weights stand together, in a kernel and in a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.errors import DataError

Integers = NDArray[np.int64]

BITS: Final = 12
TOTAL: Final = 1 << BITS
"""What the frequencies of one context sum to."""

LOWEST: Final = 1 << 16
"""Of a state between two symbols; states are below 2^32."""

MOST_SYMBOLS: Final = 1024
MOST_CONTEXTS: Final = 8
MOST_LANES: Final = 1024
FORGETS: Final = 3
"""The running mean of sizes loses 1/8 with each symbol: about the nine weights of a kernel."""

MOST_SIZE: Final = 255
"""Sizes count no further in that mean."""


@dataclass(frozen=True)
class Table:
    """How often each of the symbols ``low``, ``low + 1``, … comes, by context.

    ``frequencies`` is (contexts, symbols), each row summing to ``TOTAL``; ``bounds`` are the running means (times 8) from
    which on the next context is meant, one fewer than contexts.
    """

    low: int
    frequencies: Integers
    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        contexts, symbols = self.frequencies.shape
        sums = self.frequencies.sum(1)
        if not (
            1 <= symbols <= MOST_SYMBOLS
            and contexts == len(self.bounds) + 1 <= MOST_CONTEXTS
            and list(self.bounds) == sorted(self.bounds)
            and (self.frequencies >= 0).all()
            and (sums == TOTAL).all()
        ):
            raise DataError("a table of frequencies", f"{contexts} x {symbols} that sum to {sums[:4]}", "Pack it anew")

    @property
    def starts(self) -> Integers:
        """The sum of the frequencies before each symbol."""
        return np.cumsum(self.frequencies, 1) - self.frequencies


def table_of(values: Integers, contexts: int, lanes: int) -> Table:
    """The table that ``values`` are coded with in fewest bits, with at most ``contexts`` contexts of equal numbers."""
    low, high = int(values.min()), int(values.max())
    if high - low >= MOST_SYMBOLS:
        found = f"{high - low + 1} different steps"
        raise DataError("code an array", found, f"Choose larger steps: at most {MOST_SYMBOLS} are coded")
    means = _means(_laid_out(values, lanes), len(values)) if contexts > 1 else np.zeros(len(values), np.int64)
    bounds = tuple(sorted({int(bound) + 1 for bound in np.quantile(means, np.arange(1, contexts) / contexts)}))
    which = np.searchsorted(np.asarray(bounds, np.int64), means, side="right")
    counts = np.zeros((len(bounds) + 1, high - low + 1), np.int64)
    np.add.at(counts, (which, values - low), 1)
    return Table(low, np.stack([_scaled(row) for row in counts]), bounds)


def _scaled(counts: Integers) -> Integers:
    """Counts as frequencies that sum to ``TOTAL``; whatever came once has one at least, and what never came none."""
    if not counts.any():
        counts = np.ones_like(counts)
    there = counts > 0
    found = np.where(there, np.maximum(1, np.round(counts * (TOTAL / counts.sum()))), 0).astype(np.int64)
    while (over := int(found.sum()) - TOTAL) != 0:
        largest = int(found.argmax())
        found[largest] -= min(over, int(found[largest]) // 2) if over > 0 else over
    return found


def lanes_for(count: int) -> int:
    """Lanes of an array of ``count`` numbers: more decode faster, and each ends in a state of its own of 4 bytes."""
    return int(min(256, max(1, 1 << (max(count, 1) // 2048).bit_length())))


def encode(arrays: Sequence[tuple[Integers, Table]], lanes: int) -> bytes:
    """The stream of all arrays of integers, each with its table: final states, then words in the order of decoding."""
    states = np.full(lanes, LOWEST, np.uint64)
    words: list[NDArray[np.uint64]] = []
    for values, table in reversed(arrays):
        grid, active = _laid_out(values - table.low, lanes), _active(len(values), lanes)
        means = _steps_of_means(_laid_out(values, lanes))
        which = np.searchsorted(np.asarray(table.bounds, np.int64), means, side="right")
        frequencies = table.frequencies[which, grid].astype(np.uint64)
        starts = table.starts[which, grid].astype(np.uint64)
        for step in range(grid.shape[0] - 1, -1, -1):
            count = int(active[step])
            state, often = states[:count], frequencies[step, :count]
            full = state >= (often << np.uint64(32 - BITS))
            words.append(state[full] & np.uint64(0xFFFF))
            state[full] >>= np.uint64(16)
            states[:count] = (state // often << np.uint64(BITS)) + state % often + starts[step, :count]
    packed = np.concatenate([states.astype("<u4").view("<u2"), *(part.astype("<u2") for part in reversed(words))])
    return packed.tobytes()


def decode(data: bytes, shapes: Sequence[tuple[int, Table]], lanes: int) -> list[Integers]:
    """The arrays of a stream, of which each has a count and a table. Raises ``DataError`` for a stream that ends too early,
    has words left, or does not end in the state that encoding begins with."""
    if not 1 <= lanes <= MOST_LANES or len(data) < 4 * lanes or len(data) % 2:
        raise DataError("decode weights", f"{len(data)} bytes for {lanes} lanes are no stream", "Fetch the file anew")
    states = np.frombuffer(data, "<u4", lanes).astype(np.uint32)
    reader = _Words(np.frombuffer(data, "<u2", offset=4 * lanes).astype(np.uint32))
    found = [_decode_one(states, reader, count, table, lanes) for count, table in shapes]
    if reader.left or (states != LOWEST).any():
        raise DataError("decode weights", "the stream does not end where it should", "Fetch the file anew")
    return found


class _Words:
    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words = words
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._words) - self._at

    def next(self, count: int) -> NDArray[np.uint32]:
        self._at += count
        if self._at > len(self._words):
            raise DataError("decode weights", "the stream ends too early", "Fetch the file anew")
        return self._words[self._at - count : self._at]


def _decode_one(states: NDArray[np.uint32], reader: _Words, count: int, table: Table, lanes: int) -> Integers:
    """``states`` change in place. One look-up a symbol: (context, slot) gives symbol, frequency and place in it."""
    contexts, symbols = table.frequencies.shape
    symbol_of = np.stack([np.repeat(np.arange(symbols), row) for row in table.frequencies])
    often_of = np.take_along_axis(table.frequencies, symbol_of, 1).astype(np.uint32).ravel()
    rest_of = (np.arange(TOTAL) - np.take_along_axis(table.starts, symbol_of, 1)).astype(np.uint32).ravel()
    value_of = (symbol_of + table.low).ravel()
    size_of = np.minimum(np.abs(value_of), MOST_SIZE)
    bounds = np.asarray(table.bounds, np.int64)
    active = _active(count, lanes)
    grid = np.zeros((len(active), lanes), np.int64)
    means = np.zeros(lanes, np.int64)
    for step, number in enumerate(active.tolist()):
        state = states[:number]
        slot = (state & np.uint32(TOTAL - 1)).astype(np.int64)
        if contexts > 1:
            slot += np.searchsorted(bounds, means[:number], side="right") << BITS
            means[:number] += size_of[slot] - (means[:number] >> FORGETS)
        grid[step, :number] = value_of[slot]
        state = often_of[slot] * (state >> np.uint32(BITS)) + rest_of[slot]
        short = np.flatnonzero(state < LOWEST)
        if len(short):
            state[short] = (state[short] << np.uint32(16)) | reader.next(len(short))
        states[:number] = state
    return _taken_up(grid, count, lanes)


def _run_length(count: int, lanes: int) -> int:
    return -(-count // lanes) if count else 0


def _active(count: int, lanes: int) -> Integers:
    """How many lanes have a symbol at each step: the first ones, as longer runs come first."""
    steps = _run_length(count, lanes)
    whole = count - (steps - 1) * lanes if steps else 0
    return np.array([lanes] * (steps - 1) + [whole] * bool(steps), np.int64)


def _laid_out(values: Integers, lanes: int) -> Integers:
    """(steps, lanes): consecutive numbers go down a lane; the last step is left short by the lanes at the end."""
    steps = _run_length(len(values), lanes)
    grid = np.zeros((steps, lanes), np.int64)
    if not steps:
        return grid
    full = len(values) - (steps - 1) * lanes
    grid[:, :full] = values[: full * steps].reshape(full, steps).T
    if full < lanes and steps > 1:
        grid[: steps - 1, full:] = values[full * steps :].reshape(lanes - full, steps - 1).T
    return grid


def _taken_up(grid: Integers, count: int, lanes: int) -> Integers:
    steps = _run_length(count, lanes)
    if not steps:
        return np.zeros(0, np.int64)
    full = count - (steps - 1) * lanes
    return np.concatenate([grid[:, :full].T.ravel(), grid[: steps - 1, full:].T.ravel()])


def _steps_of_means(grid: Integers) -> Integers:
    """The running mean before each symbol of each lane, times 8."""
    sizes = np.minimum(np.abs(grid), MOST_SIZE)
    means = np.zeros_like(grid)
    for step in range(1, len(grid)):
        means[step] = means[step - 1] - (means[step - 1] >> FORGETS) + sizes[step - 1]
    return means


def _means(grid: Integers, count: int) -> Integers:
    return _taken_up(_steps_of_means(grid), count, grid.shape[1])

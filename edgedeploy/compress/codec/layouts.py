"""Where decoded weights lie in the files of a model, and how: so that a link need not carry them a second time.

A toolchain writes a network's weights into its files with other axes, in two bytes, or as int8 by a rule of its own. Each
such form is a pure function of the decoded weights (:func:`formed`), built of operations that IEEE 754 says every bit of.
What a file holds is found by its bytes, never by a name or a format, and what differs is told number by number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.compress.codec.coded import Numbers

FEWEST_BYTES: Final = 64
"""Of a file: what is shorter costs more to name than to send."""

MOST_DIMENSIONS: Final = 5
LEVELS: Final = (127, 63)
"""The largest whole number of int8 weights, and of those that leave a bit free for processors whose sums saturate."""

WRONG_SHARE: Final = 0.02
"""Of an array's numbers: more that differ are another array."""

_PROBE_BYTES: Final = 24
_PROBES: Final = 5
_FEW: Final = 8
"""Places of one probe that are looked at."""

_LEAST_VARIED: Final = 4
"""Different bytes of a probe."""

_BITS: Final = 24
_PIECE: Final = 1 << 22


@dataclass(frozen=True, order=True)
class Form:
    """How an array lies in a file: its axes in the order ``axes``; ``kind`` is ``same``, ``float16``, or ``int8``, of whole
    multiples of the largest magnitude over ``levels`` (of each index of ``channel``, or of the array where it is -1)."""

    kind: str
    axes: tuple[int, ...]
    channel: int = -1
    levels: int = 0

    def fits(self, array: Numbers) -> bool:
        """Whether it says something of an array of that shape and type."""
        if sorted(self.axes) != list(range(array.ndim)) or self.kind not in ("same", "float16", "int8"):
            return False
        if self.kind == "same":
            return True
        if array.dtype != np.float32:
            return False
        return self.kind == "float16" or (self.levels in LEVELS and -1 <= self.channel < array.ndim)


@dataclass(frozen=True)
class Span:
    """``start`` to ``end`` of a file are the array ``name`` in ``form``; bytes at ``places`` (from ``start``) are ``values``
    instead."""

    start: int
    end: int
    name: str
    form: Form
    places: NDArray[np.int64]
    values: bytes


def formed(array: Numbers, form: Form) -> bytes:
    """The bytes of ``array`` in a form that fits it: little-endian, in C order."""
    if form.kind == "float16":
        with np.errstate(over="ignore"):
            array = array.astype(np.float16)
    elif form.kind == "int8":
        array = _int8(array, form.channel, form.levels)
    turned = np.ascontiguousarray(array.transpose(form.axes))
    return turned.astype(turned.dtype.newbyteorder("<"), copy=False).tobytes()


def _int8(array: Numbers, channel: int, levels: int) -> NDArray[np.int8]:
    """Symmetric: a float32 scale, a float32 quotient, the nearest even."""
    others = tuple(axis for axis in range(array.ndim) if axis != channel)
    largest = np.abs(array).max(axis=others, keepdims=True) if array.size else np.zeros((), np.float32)
    scale = np.asarray(largest / np.float32(levels), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.nan_to_num(np.rint(array / scale))
    return np.asarray(np.clip(codes, -levels - 1, levels), np.int8)


def patched(data: bytes, span: Span) -> bytes:
    """``data`` of the span's form with the bytes that differ put in."""
    if not len(span.places):
        return data
    found = np.frombuffer(data, np.uint8).copy()
    found[span.places] = np.frombuffer(span.values, np.uint8)
    return found.tobytes()


def spans(data: bytes, arrays: Mapping[str, Numbers]) -> list[Span]:
    """What of a file is one of ``arrays``, in order and without overlap; long arrays are looked for first."""
    found: list[Span] = []
    taken, file = _Taken(), _File(data)
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].nbytes, item[0])):
        for form in _forms(array):
            if _most_bytes(array, form) < FEWEST_BYTES:
                continue
            span = _first(file, name, array, form, taken)
            if span is not None:
                found.append(span)
                taken.add(span.start, span.end)
                break  # a file holds a weight once: what it holds twice is sent
    return sorted(found, key=lambda span: span.start)


def _most_bytes(array: Numbers, form: Form) -> int:
    return array.size * {"same": array.itemsize, "float16": 2, "int8": 1}[form.kind]


def _forms(array: Numbers) -> Iterator[Form]:
    """The likely first: as it is, then with other axes, then rounded."""
    if array.ndim > MOST_DIMENSIONS:
        yield Form("same", tuple(range(array.ndim)))
        return
    kinds: list[tuple[str, int, int]] = [("same", -1, 0)]
    if array.dtype == np.float32:
        kinds.append(("float16", -1, 0))
        if array.ndim > 1:
            kinds += [("int8", channel, levels) for levels in LEVELS for channel in (0, 1, -1)]
    for kind, channel, levels in kinds:
        for axes in _turns(array.shape):
            yield Form(kind, axes, channel, levels)


def _turns(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes that toolchains write and that give other bytes: outputs, inputs and the kernel's own axes, which
    stay together and in order. An axis of one number may stand anywhere."""
    seen = set()
    blocks = [(0,), (1,), tuple(range(2, len(shape)))] if len(shape) > 1 else [tuple(range(len(shape)))]
    for order in itertools.permutations(blocks):
        axes = tuple(itertools.chain.from_iterable(order))
        told = tuple(axis for axis in axes if shape[axis] != 1)
        if told not in seen:
            seen.add(told)
            yield axes


class _File:
    """A file's bytes, and which words of four bytes are in it: most that is looked for is not there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._seen = np.zeros(1 << _BITS, np.bool_)
        for first in range(min(4, max(0, len(data) - 3))):
            for start in range(first, len(data) - 3, _PIECE):
                count = min(_PIECE, len(data) - start) // 4
                self._seen[_slots(np.frombuffer(data, "<u4", count, start))] = True

    def places(self, probe: bytes) -> Iterator[int]:
        """The first few places of a probe."""
        if not self._seen[_slots(np.frombuffer(probe, "<u4", len(probe) // 4))].all():
            return
        at = -1
        for _ in range(_FEW):
            at = self.data.find(probe, at + 1)
            if at < 0:
                return
            yield at


def _slots(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Multiplicative hashing (Knuth)."""
    return np.asarray((words * np.uint32(2654435769)) >> np.uint32(32 - _BITS), np.uint32)


class _Taken:
    def __init__(self) -> None:
        self._pieces: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        self._pieces.append((start, end))

    def meets(self, start: int, end: int) -> bool:
        return any(start < other_end and other_start < end for other_start, other_end in self._pieces)


def _first(file: _File, name: str, array: Numbers, form: Form, taken: _Taken) -> Span | None:
    """The first place of a file that is the array in that form, or nearly; probes within it find the place."""
    wanted = formed(array, form)
    starts = sorted({int(at) for at in np.linspace(0, len(wanted) - _PROBE_BYTES, _PROBES)})
    tried: set[int] = set()
    for offset in starts:
        probe = wanted[offset : offset + _PROBE_BYTES]
        if len(set(probe)) < _LEAST_VARIED:
            continue  # zeros stand everywhere
        for at in file.places(probe):
            start = at - offset
            end = start + len(wanted)
            if start < 0 or start in tried or end > len(file.data) or taken.meets(start, end):
                continue
            tried.add(start)
            span = _compared(file.data, start, wanted, name, form)
            if span is not None:
                return span
    return None


def _compared(data: bytes, start: int, wanted: bytes, name: str, form: Form) -> Span | None:
    end = start + len(wanted)
    there = np.frombuffer(data, np.uint8, len(wanted), start)
    places = np.flatnonzero(there != np.frombuffer(wanted, np.uint8)).astype(np.int64)
    if len(places) > WRONG_SHARE * len(wanted):
        return None
    return Span(start, end, name, form, places, there[places].tobytes())


def form_of(told: Any) -> Form:
    """The form that :func:`told_of` wrote. Raises ``ValueError`` or ``TypeError`` for anything else."""
    kind, axes, channel, levels = told
    numbers = [*axes, channel, levels]
    if not isinstance(kind, str) or any(type(one) is not int for one in numbers):
        raise ValueError("a form of weights that is none")
    return Form(kind, tuple(axes), channel, levels)


def told_of(form: Form) -> list[Any]:
    return [form.kind, list(form.axes), form.channel, form.levels]

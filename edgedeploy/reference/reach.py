"""Which positions of a network's input one position of a tensor reads, along each spatial axis: what
:mod:`.receptive` finds of a graph, and what a tile needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class Reach:
    """Position ``p`` reads the input's positions ``stride * p + low`` to ``stride * p + high``."""

    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def of_window(self, kernel: int, stride: int, dilation: int, pad: int) -> Reach:
        """Of an output of a convolution or a pooling over a tensor that has this reach."""
        return Reach(
            self.stride * stride,
            self.low - self.stride * pad,
            self.high + self.stride * (dilation * (kernel - 1) - pad),
        )

    def of_transposed(self, kernel: int, stride: int, dilation: int, pad: int) -> Reach:
        """Of an output of a transposed convolution: output p has input i where p = i * stride - pad + dilation * j."""
        fine = self.stride / stride
        return Reach(fine, self.low + fine * (pad - dilation * (kernel - 1)), self.high + fine * pad)

    def of_finer(self, factor: int, around: int, centred: bool) -> Reach:
        """Of an output of an interpolation ``factor`` times as fine from ``around`` neighbours to each side of a place
        between voxels; ``centred`` where voxels are areas (half pixels), not points."""
        fine = self.stride / factor
        shift = self.stride * (Fraction(1, 2 * factor) - Fraction(1, 2)) if centred else Fraction(0)
        return Reach(fine, self.low + shift - self.stride * around, self.high + shift + self.stride * around)

    def moved(self, by: int) -> Reach:
        """Of an output whose position p is position p + ``by`` of this one."""
        return replace(self, low=self.low + self.stride * by, high=self.high + self.stride * by)

    def there(self, whole: int, count: int) -> Reach:
        """With the place of the position itself, of ``count`` along an axis of ``whole`` voxels: a tile computes no position
        of a tensor that lies before its origin or behind its end, whatever that position reads (a crop reads further on
        than where it lies). What is cut off at the end of the whole is cut off at the end of each tile."""
        end = whole - self.stride * (count - 1) - 1
        return replace(self, low=min(self.low, Fraction(0)), high=max(self.high, self.stride - 1, end))

    def joined(self, other: Reach) -> Reach:
        return Reach(self.stride, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Spread:
    """A tensor with spatial axes: ``axes`` are where they stand in its shape, in the input's order, ``reaches`` what each
    reads. ``flat``: a reshape has merged the axes, which had these sides, and another will take them apart."""

    axes: tuple[int, ...]
    reaches: tuple[Reach, ...]
    flat: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fields:
    """What was found of a graph: the spread of each output, and of all tensors.
    ``mixing``: the first operator of each kind whose answer depends on all positions or on their number, with its layer."""

    outputs: Mapping[str, Spread]
    tensors: Mapping[str, Spread]
    mixing: tuple[str, ...]

    @property
    def axes(self) -> int:
        return len(next(iter(self.outputs.values())).axes)

    def alignment(self) -> tuple[int, ...]:
        """Per axis, what a tile's origin has to be a multiple of, so that every stride falls into step with the whole
        volume's."""
        found = []
        for axis in range(self.axes):
            strides = {spread.reaches[axis].stride for spread in self.tensors.values()}
            found.append(math.lcm(*(stride.numerator for stride in strides)))
        return tuple(found)

    def halo(self) -> tuple[tuple[int, int], ...]:
        """Per axis, the voxels before and behind a voxel of the volume that its answer is made of."""
        halos = []
        for axis in range(self.axes):
            reaches = [spread.reaches[axis] for spread in self.outputs.values()]
            before = max(math.ceil(-reach.low) for reach in reaches)
            behind = max(math.ceil(reach.high) for reach in reaches)
            halos.append((max(0, before), max(0, behind)))
        return tuple(halos)

"""What a board's processor makes of each precision, told by its probe before anything is built for it.

A target says which CPU flags a precision needs (:class:`Demand`); here the flags that a board has are held against that.
What cannot run is left out of the search; what would run without the instructions that make it fast is tried and said,
because only a measurement knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgedeploy.records.board import BoardInfo

X86: Final = ("x86_64", "amd64", "i386", "i686")
X86_INT8_DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Without one of these, int8 kernels of x86 add pairs of products in 16 bits (``vpmaddubsw``), which saturate."""

INT8_DOT_PRODUCTS: tuple[str, ...] = (*X86_INT8_DOT_PRODUCTS, "asimddp", "i8mm")
"""Instructions that multiply and add int8 in one step: VNNI and AMX on x86, dot product and matrix multiply on Arm."""

NATIVE_BFLOAT16: Final = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions that multiply bfloat16: without them a CPU emulates it, several times slower than float32."""


def sums_int8_exactly(arch: str, isa: Collection[str]) -> bool:
    """Whether int8 kernels add products without saturating. Two products of a uint8 and an int8 number may pass 16 bits,
    unless the weights have 7 bits: 2 * 255 * 64 = 32640."""
    return arch.lower() not in X86 or any(flag in isa for flag in X86_INT8_DOT_PRODUCTS)


def has_native_bfloat16(isa: Collection[str]) -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    return any(flag in isa for flag in NATIVE_BFLOAT16)


@dataclass(frozen=True)
class Demand:
    """CPU flags, by the kernel's names, of which one is enough. Empty ``runs_with``: any processor."""

    runs_with: tuple[str, ...] = ()
    fast_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ability:
    """One precision on one board: whether it ``runs``, whether it is ``native`` there (None: no flag tells), and why."""

    precision: str
    runs: bool
    native: bool | None
    reason: str


def abilities(info: BoardInfo, precisions: Sequence[str], demands: Mapping[str, Demand]) -> tuple[Ability, ...]:
    """What ``info``'s processor makes of each of a target's ``precisions``, in their order."""
    return tuple(_ability(frozenset(info.isa), precision, demands.get(precision, Demand())) for precision in precisions)


def runnable(info: BoardInfo, precisions: Sequence[str], demands: Mapping[str, Demand]) -> tuple[str, ...]:
    """The precisions that the board can run, in their order."""
    return tuple(ability.precision for ability in abilities(info, precisions, demands) if ability.runs)


def _ability(isa: frozenset[str], precision: str, demand: Demand) -> Ability:
    carrying = [flag for flag in demand.runs_with if flag in isa]
    if demand.runs_with and not carrying:
        return Ability(precision, False, False, f"the CPU has none of {', '.join(demand.runs_with)}")
    fast = [flag for flag in demand.fast_with if flag in isa]
    if fast:
        return Ability(precision, True, True, " ".join(fast))
    if demand.fast_with:
        lacking = ", ".join(demand.fast_with)
        return Ability(precision, True, False, f"without {lacking}: may be slower than float32, measure it")
    return Ability(precision, True, None, "any CPU")

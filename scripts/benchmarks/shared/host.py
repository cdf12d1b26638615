"""The machine that a figure was taken on, in words: figures differ with the instructions that its processor has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edgedeploy.runtime.sensors.probe import cpu_model, isa_here

FLAGS: Final = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
"""Instructions that decide what int8 and bfloat16 gain."""


def machine() -> str:
    """The processor, its cores and those of ``FLAGS`` that it has."""
    flags = ", ".join(flag for flag in FLAGS if flag in isa_here()) or "none that matter here"
    return f"{cpu_model(Path('/proc/cpuinfo').read_text())}, {os.cpu_count()} cores ({flags})"


def circumstances() -> str:
    """The machine and its load of the last minute, to stand with a figure."""
    return f"{machine()}, load {os.getloadavg()[0]:.1f}"

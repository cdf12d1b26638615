"""The training host: its processor's instructions decide whether training runs in bfloat16 or float32."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edgedeploy.interfaces.ability import has_native_bfloat16
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.runtime.sensors.probe import cpu_model, isa_of

CPUINFO: Final = Path("/proc/cpuinfo")

LIMITS: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit oneDNN, which computes torch's layers, to an older processor's instructions."""

LIMITS_WITHOUT_BFLOAT16: Final = (
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_MIC", "AVX512_MIC_4OPS"),
    *("AVX512_CORE", "AVX512_CORE_VNNI"),
)
"""Values of these variables below AVX512_CORE_BF16 (oneDNN's guide, "CPU Dispatcher Control"). AVX2_VNNI_2 converts
bfloat16 but cannot multiply it."""

TrainingPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingHost:
    """A processor (its model name and flags as the Linux kernel gives them) and the ``limit`` that the environment sets
    on the instructions oneDNN may use; empty for no limit."""

    cpu: str
    isa: tuple[str, ...]
    limit: str = ""

    @property
    def native_bfloat16(self) -> bool:
        return has_native_bfloat16(self.isa) and self.limit.upper() not in LIMITS_WITHOUT_BFLOAT16

    def precision(self, recipe: TrainRecipe) -> TrainingPrecision:
        """bfloat16 if the recipe asks for it and the processor multiplies it natively; emulated bfloat16 takes 7 to 9
        times as long as float32."""
        return "bfloat16" if recipe.bfloat16 and self.native_bfloat16 else "float32"

    def as_json(self) -> dict[str, Any]:
        return {
            "cpu": self.cpu,
            "isa": list(self.isa),
            "isa_limit": self.limit,
            "native_bfloat16": self.native_bfloat16,
        }


def this_host(cpuinfo: Path = CPUINFO, environ: Mapping[str, str] = os.environ) -> TrainingHost:
    """This host's processor. Without a readable ``cpuinfo`` it has no flags, so nothing counts as native."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    limit = next((environ[name] for name in LIMITS if environ.get(name)), "")
    return TrainingHost(cpu_model(text), tuple(isa_of(text)), limit)

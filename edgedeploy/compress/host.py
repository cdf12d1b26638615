"""The machine that trains is a machine too: what its processor has decides the precision that a training runs in."""

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
"""Environment variables that keep oneDNN, which computes torch's layers, to an older processor's instructions."""

LIMITS_WITHOUT_BFLOAT16: Final = (
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_MIC", "AVX512_MIC_4OPS"),
    *("AVX512_CORE", "AVX512_CORE_VNNI"),
)
"""Their values that lie below AVX512_CORE_BF16 (oneDNN's guide, "CPU Dispatcher Control"). AVX2_VNNI_2 converts bfloat16
and does not multiply it."""

TrainingPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingHost:
    """A processor by the kernel's names, and the ``limit`` that the environment sets to what oneDNN uses of it."""

    cpu: str
    isa: tuple[str, ...]
    limit: str = ""

    @property
    def native_bfloat16(self) -> bool:
        return has_native_bfloat16(self.isa) and self.limit.upper() not in LIMITS_WITHOUT_BFLOAT16

    def precision(self, recipe: TrainRecipe) -> TrainingPrecision:
        """bfloat16 where the recipe asks for it and the processor multiplies it: emulated it takes 7 to 9 times as long as
        float32."""
        return "bfloat16" if recipe.bfloat16 and self.native_bfloat16 else "float32"

    def as_json(self) -> dict[str, Any]:
        return {
            "cpu": self.cpu,
            "isa": list(self.isa),
            "isa_limit": self.limit,
            "native_bfloat16": self.native_bfloat16,
        }


def this_host(cpuinfo: Path = CPUINFO, environ: Mapping[str, str] = os.environ) -> TrainingHost:
    """The processor at hand; one without flags where the kernel does not tell, and then nothing is taken as native."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    limit = next((environ[name] for name in LIMITS if environ.get(name)), "")
    return TrainingHost(cpu_model(text), tuple(isa_of(text)), limit)

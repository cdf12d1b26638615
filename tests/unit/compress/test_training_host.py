"""The machine that trains decides the precision: bfloat16 only where the processor multiplies it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgedeploy.compress.host import LIMITS_WITHOUT_BFLOAT16, TrainingHost, this_host
from edgedeploy.interfaces.task import TrainRecipe

RECIPE = TrainRecipe(epochs=1, batch_size=8, learning_rate=0.01, bfloat16=True)
ZEN_4 = TrainingHost("AMD EPYC", ("avx2", "avx512_bf16", "avx512_vnni", "avx512f"))
HASWELL = TrainingHost("Intel Core i5-4590", ("avx2", "f16c", "fma"))


@pytest.mark.parametrize(
    ("host", "precision"),
    [
        (ZEN_4, "bfloat16"),
        (HASWELL, "float32"),
        (TrainingHost("Xeon Gold 6430", ("amx_bf16", "avx512f")), "bfloat16"),
        (TrainingHost("Neoverse-V1", ("asimd", "bf16")), "bfloat16"),
        (TrainingHost("Cortex-A72", ("asimd",)), "float32"),
        (TrainingHost("unknown", ()), "float32"),
    ],
)
def test_bfloat16_is_trained_in_where_the_processor_has_it(host: TrainingHost, precision: str) -> None:
    assert host.precision(RECIPE) == precision
    assert host.precision(replace(RECIPE, bfloat16=False)) == "float32"


@pytest.mark.parametrize("limit", LIMITS_WITHOUT_BFLOAT16)
def test_a_limit_of_onednn_below_bfloat16_counts_as_a_processor_without_it(limit: str) -> None:
    assert replace(ZEN_4, limit=limit).precision(RECIPE) == "float32"


@pytest.mark.parametrize("limit", ["AVX512_CORE_BF16", "AVX512_CORE_AMX", "DEFAULT", ""])
def test_a_limit_that_leaves_bfloat16_changes_nothing(limit: str) -> None:
    assert replace(ZEN_4, limit=limit).precision(RECIPE) == "bfloat16"
    assert replace(HASWELL, limit=limit).precision(RECIPE) == "float32"


def test_the_host_is_read_from_the_kernel_and_the_environment(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    core = "processor\t: {}\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu sse2 avx2 avx512_bf16{}\n\n"
    cpuinfo.write_text(core.format(0, " avx512_vnni") + core.format(1, ""))
    found = this_host(cpuinfo, {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert found == TrainingHost("AMD EPYC 9B14", ("avx2", "avx512_bf16"), "AVX2")
    assert not found.native_bfloat16
    assert this_host(cpuinfo, {}).native_bfloat16
    assert this_host(cpuinfo, {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}).limit == "AVX512_CORE"
    assert not this_host(tmp_path / "missing", {}).native_bfloat16

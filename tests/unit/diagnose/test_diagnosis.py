"""What a processor's flags say about the pace and the truth of its kernels, in words."""

from __future__ import annotations

import pytest

from edgedeploy.compress.host import TrainingHost
from edgedeploy.diagnose.doctor import NO_VECTORS, OF_KINDS, Finding, processor_findings, study_findings
from edgedeploy.tasks.load import EXTRAS

ZEN_4 = ("avx2", "avx512_bf16", "avx512_vnni", "avx512f", "f16c", "fma")
HASWELL = ("avx2", "f16c", "fma")


def found_on(arch: str, isa: tuple[str, ...]) -> dict[str, Finding]:
    return {finding.what: finding for finding in processor_findings(arch, TrainingHost("A CPU", isa), 2)}


@pytest.mark.parametrize(
    ("arch", "isa", "kernels", "exact", "native"),
    [
        ("x86_64", ZEN_4, "AVX-512", True, True),
        ("x86_64", HASWELL, "AVX2, half as wide as AVX-512", False, False),
        ("x86_64", (*HASWELL, "avx_vnni"), "AVX2, half as wide as AVX-512", True, False),
        ("x86_64", (), NO_VECTORS, False, False),
        ("aarch64", ("asimd",), "Neon", True, False),
        ("aarch64", ("asimd", "asimddp", "bf16", "sve"), "SVE", True, True),
    ],
)
def test_what_is_slow_or_wrong_is_said_with_what_is_done_about_it(
    arch: str, isa: tuple[str, ...], kernels: str, exact: bool, native: bool
) -> None:
    found = found_on(arch, isa)
    assert found["processor"].found == "A CPU, 2 cores"
    assert (found["float kernels"].found, found["float kernels"].ok) == (
        kernels,
        None if kernels == NO_VECTORS else True,
    )
    assert found["int8 kernels"].ok is (True if exact else None)
    assert ("saturate" in found["int8 kernels"].found, "7-bit weights" in found["int8 kernels"].found) == (
        not exact,
    ) * 2
    assert found["bfloat16 training"].ok is (True if native else None)
    assert ("training uses float32" in found["bfloat16 training"].found) == (not native)


def test_a_limit_that_the_environment_sets_is_named() -> None:
    (training,) = (
        finding
        for finding in processor_findings("x86_64", TrainingHost("A CPU", ZEN_4, "AVX2"), 2)
        if finding.what == "bfloat16 training"
    )
    assert training.ok is None
    assert "limits to AVX2" in training.found


def test_instructions_that_make_it_exact_are_named() -> None:
    found = found_on("x86_64", ZEN_4)
    assert found["int8 kernels"].found == "exact (avx512_vnni)"
    assert found["bfloat16 training"].found == "native (avx512_bf16)"
    assert "without dot products" in found_on("aarch64", ("asimd",))["int8 kernels"].found


def test_what_a_study_needs_beside_others_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    space = {"image_codec": ("none", "jpegls"), "storage": ("none", "int8-zstd")}
    found = {finding.what: finding for finding in study_findings({"kind": "low-dose-ct", "options": {}}, space)}
    assert list(found) == ["package skimage", "package imagecodecs", "package zstandard"]
    assert all(finding.ok is False for finding in found.values())
    assert found["package imagecodecs"].remedy == "pip install 'edgedeploy[codecs]'"
    own = {"kind": "low-dose-ct", "options": {"root": "data"}}
    assert study_findings(own, {"image_codec": ("none",), "storage": ("uniform:0.3",)}) == []
    assert {package: f"pip install 'edgedeploy[{extra}]'" for package, extra in EXTRAS.items()} == dict(
        OF_KINDS.values()
    )

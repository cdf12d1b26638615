"""Made-up measurements: no board ever said any of this. For tests of what is concluded from measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.evidence.statistics import summarise_cases
from edgedeploy.records.artifact import Artifact, ArtifactFile, TensorSpec
from edgedeploy.records.board import BoardInfo, Provenance
from edgedeploy.records.job import RawSide
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.limits import stability_limits

LIMITS = stability_limits(MeasureTable())
"""What a study file that says nothing of it allows a run to do."""

TASK_METRICS = {
    "dice_mean": MetricInfo("maximize", "1", "Dice, mean over the classes"),
    "hd95_px": MetricInfo("minimize", "px", "95th percentile of the surface distance"),
}


def variant(
    target: str = "onnxruntime", precision: str = "float32", width: float = 1.0, threads: int = 2, **arch: Any
) -> Variant:
    return Variant(target, precision, width, tuple(sorted((arch or {"resolution": 128}).items())), threads)


def board(**changes: Any) -> BoardInfo:
    values: dict[str, Any] = {
        "name": "made-up board",
        "provenance": "emulated",
        "identity": "0" * 16,
        "boot_id": "boot",
        "cpu": "Made-up CPU @ 2.0 GHz",
        "arch": "x86_64",
        "isa": ("avx2", "avx512_vnni"),
        "cores": 2,
        "memory_bytes": 8 << 30,
        "os": "Made-up Linux 1.0",
        "python": "3.11.9",
        "runtimes": {"onnxruntime": "1.32.0", "openvino": "2026.4.1"},
        "governor": None,
        "notes": ("made-up board: nothing was measured",),
    }
    return BoardInfo(**{**values, **changes})


def side(
    median_ms: float,
    *,
    seed: int = 0,
    blocks: int = 84,
    block: int = 8,
    noise: float = 0.02,
    drift: float = 0.0,
    executed: Mapping[str, int] | None = None,
) -> RawSide:
    """Log-normal latencies around ``median_ms``; ``drift`` is the share by which the last block is slower."""
    rng = np.random.default_rng(seed)
    slope = 1 + drift * np.linspace(0, 1, blocks)[:, None]
    shared = np.exp(rng.normal(0, noise / 2, (blocks, 1)))
    times = median_ms * 1e6 * slope * shared * np.exp(rng.normal(0, noise, (blocks, block)))
    return RawSide(
        blocks_ns=tuple(tuple(int(n) for n in row) for row in times),
        cpu_ns=tuple(int(1.9 * row.sum()) for row in times),
        cold_starts_ns=(412_000_000, 398_000_000, 405_000_000),
        peak_memory_bytes=142_000_000,
        executed=executed or {"float32": 14},
        device="CPU",
        runtime_version="1.32.0",
    )


def artifact(of: Variant, size_bytes: int = 1_200_000) -> Artifact:
    tensors = (TensorSpec("image", "float32", (1, 1, 128, 128)),), (TensorSpec("logits", "float32", (1, 3, 128, 128)),)
    files = (ArtifactFile("model.onnx", "ab" * 32, size_bytes),)
    return Artifact(of.target, of.precision, "model.onnx", files, *tensors, (), "cd" * 32, (("onnx", "1.23.2"),))


def cases(dice: float, *, count: int = 40, seed: int = 0, shift_noise: float = 0.004) -> dict[str, dict[str, float]]:
    """Per-case Dice with mean about ``dice``. Cases are hard or easy for every variant alike; ``seed`` adds its own."""
    hardness = np.random.default_rng(99).normal(0, 0.06, count)
    own = np.random.default_rng(seed).normal(0, shift_noise, count)
    values = np.clip(dice + hardness - hardness.mean() + own - own.mean(), 0, 1)
    return {f"case-{i:02d}": {"dice_mean": float(v), "hd95_px": float(3 + 20 * (1 - v))} for i, v in enumerate(values)}


def measurement(
    of: Variant | None = None,
    *,
    dice: float = 0.85,
    latency_ms: float = 6.0,
    baseline_ms: float | None = 6.0,
    size_bytes: int = 1_200_000,
    seed: int = 1,
    per_case: Mapping[str, Mapping[str, float | None]] | None = None,
    executed: Mapping[str, int] | None = None,
    split: str = "selection",
    provenance: Provenance = "emulated",
    cause: str | None = None,
    noise: float = 0.02,
    without: Sequence[str] = (),
    **changes: Any,
) -> Measurement:
    """A measurement whose metrics follow from its made-up series; ``without`` removes metrics (missing: ``test``)."""
    of = of or variant()
    candidate = side(latency_ms, seed=seed, noise=noise, executed=executed)
    baseline = side(baseline_ms, seed=seed + 1000, noise=noise) if baseline_ms else None
    built = artifact(of, size_bytes)
    metrics, missing = board_metrics(candidate, baseline, built)
    by_case = per_case if per_case is not None else cases(dice, seed=seed)
    for name in TASK_METRICS:
        summary = summarise_cases(by_case, name)
        if summary is None:
            missing[name] = "defined for no case"
        else:
            metrics[name] = summary.mean
    for name in without:
        missing[name] = "test"
        metrics.pop(name, None)
    values: dict[str, Any] = {
        "variant": of,
        "artifact": built,
        "board": board(provenance=provenance),
        "provenance": provenance,
        "split": split,
        "valid": cause is None,
        "cause": cause,
        "metrics": metrics,
        "missing": missing,
        "cases": by_case,
        "candidate": candidate,
        "baseline": baseline,
        "baseline_variant": variant().digest if baseline else None,
        "environment": {
            "before": {"load_1min": 0.4, "governor": None},
            "after": {"load_1min": 1.1, "governor": None},
            "background_cpu_share": 0.08,
        },
        "parity": {"max_abs": 1e-5},
        "phases_ns": {"upload": 20_000_000, "run": 9_000_000_000, "collect": 10_000_000, "wait": 0},
        "created_utc": "2026-01-01T00:00:00+00:00",
    }
    return Measurement(**{**values, **changes})

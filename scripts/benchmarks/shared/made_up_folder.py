"""A study's folder full of MADE-UP measurements: no board ever said any of this. They have the parts of real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import ROOT
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.search.space import Space
from edgedeploy.study.store import Store

sys.path.append(str(ROOT / "tests"))

import made_up
import made_up_study

SPACE: Final = Space(
    targets=("onnxruntime", "openvino"),
    parameters={
        "width": tuple(round(1 - 0.05 * step, 2) for step in range(17)),
        "resolution": (128, 112, 96, 80, 64),
        "precision": ("float32", "bfloat16", "int8"),
        "threads": (1, 2, 4),
    },
    arch_defaults={"resolution": 128},
    target_precisions={"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")},
    default_threads=2,
)
LAYERS: Final = 60
SPEED: Final = {"float32": 1.0, "bfloat16": 0.6, "int8": 0.35}
THREADS: Final = {1: 1.7, 2: 1.0, 4: 0.8}


def all_variants() -> list[Variant]:
    """Every variant of :data:`SPACE` in a shuffled order, the baselines first."""
    found = {variant.digest: variant for variant in map(SPACE.variant, SPACE.combinations())}
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = [list(found.values())[index] for index in order]
    baselines = [SPACE.baseline_variant(target) for target in SPACE.targets]
    return baselines + [variant for variant in shuffled if variant not in baselines]


def new_folder(root: Path) -> Store:
    store = Store(root)
    if store.exists():
        return store
    return made_up_study.new_store(root, [SPACE.baseline_variant(target) for target in SPACE.targets])


def made_up_measurement(variant: Variant, cases: int) -> Measurement:
    """The same variant gives the same measurement."""
    seed = int(variant.digest[:8], 16)
    rng = np.random.default_rng(seed)
    share = int(variant.arch_kwargs["resolution"]) / 128
    target = 1.1 if variant.target == "onnxruntime" else 1.0
    cost = target * variant.width**1.6 * share**2 * SPEED[variant.precision] * THREADS[variant.threads]
    dice = 0.85 - 0.06 * (1 - variant.width) ** 1.5 - 0.05 * (1 - share) - 0.004 * (variant.precision == "int8")
    return made_up.measurement(
        variant,
        latency_ms=6.0 * cost * float(np.exp(rng.normal(0, 0.02))),
        per_case=made_up.cases(dice + float(rng.normal(0, 0.002)), count=cases, seed=seed % 1000),
        seed=seed,
        layers={"candidate": _profile(6e6 * cost), "baseline": _profile(6e6)},
        created_utc=f"2026-01-01T00:00:{seed % 60:02}+00:00",
    )


def _profile(total_ns: float) -> dict[str, Any]:
    names = (f"/encoder/block{index}/conv/Conv" for index in range(LAYERS))
    ns = int(total_ns / LAYERS)
    kernel = {"kernel": "MlasConv", "device": "CPU", "operator": "Conv"}
    return {"layers": [{"name": name, "source": name, "ns": ns, **kernel} for name in names], "missing": None}

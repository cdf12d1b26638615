"""A made-up study with all that a report can show. No board ever said any of this."""

from __future__ import annotations

import dataclasses
from typing import Any

import made_up
import numpy as np

from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.front import Front, build_front
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.report.page_sections import ReportData
from edgedeploy.report.pictures import CasePicture, worst_cases
from edgedeploy.report.rivals import rivals_of
from edgedeploy.study.outline import Outline

DICE = Objective("dice_mean", "maximize")
RATIO = Objective("latency_ratio", "minimize")
EFFECTS = {"dice_mean": 0.005, "latency_ratio": 0.02}
BASELINES = (made_up.variant(), made_up.variant("openvino"))

_POINTS = [
    # target, precision, width, resolution, dice, ms, bytes
    ("onnxruntime", "float32", 1.0, 128, 0.851, 6.0, 1_210_000),
    ("openvino", "float32", 1.0, 128, 0.851, 5.1, 1_260_000),
    ("openvino", "bfloat16", 1.0, 128, 0.850, 3.0, 1_260_000),
    ("openvino", "int8", 1.0, 128, 0.848, 1.9, 390_000),
    ("onnxruntime", "int8", 1.0, 128, 0.845, 2.6, 350_000),
    ("openvino", "int8", 0.75, 128, 0.846, 1.5, 240_000),
    ("openvino", "int8", 0.5, 128, 0.835, 1.02, 130_000),
    ("openvino", "int8", 0.5, 96, 0.801, 0.66, 130_000),
    ("openvino", "int8", 0.25, 96, 0.742, 0.41, 60_000),
    ("onnxruntime", "int8", 0.5, 128, 0.831, 1.6, 120_000),
    ("onnxruntime", "float32", 0.5, 128, 0.838, 3.4, 330_000),
    ("onnxruntime", "float32", 0.75, 96, 0.822, 3.1, 700_000),
    ("openvino", "bfloat16", 0.5, 96, 0.803, 0.98, 330_000),
    ("onnxruntime", "int8", 0.25, 96, 0.738, 0.72, 55_000),
]


def measurements() -> list[Measurement]:
    found = []
    for seed, (target, precision, width, resolution, dice, ms, size) in enumerate(_POINTS):
        executed = {"float32": 14} if precision == "float32" else {precision: 12, "float32": 2}
        found.append(
            made_up.measurement(
                made_up.variant(target, precision, width, resolution=resolution),
                dice=dice,
                latency_ms=ms,
                size_bytes=size,
                seed=seed,
                executed=executed,
            )
        )
    found.append(
        made_up.measurement(
            made_up.variant("onnxruntime", "int8", 0.75),
            cause="other processes used 0.81 of a core during the run; at most 0.5 is allowed",
        )
    )
    return found


def front(items: list[Measurement] | None = None, **settings: Any) -> Front:
    values: dict[str, Any] = {
        "constraints": [Constraint("peak_memory_bytes", at_most=1e9)],
        "baseline_digests": [variant.digest for variant in BASELINES],
        "seed": 7,
        "min_effect": EFFECTS,
        "margin": 0.01,
        "metrics": made_up.TASK_METRICS,
        **settings,
    }
    found = build_front(measurements() if items is None else items, (DICE, RATIO), **values)
    return dataclasses.replace(found, failures=failures() if items is None else ())


def failures() -> tuple[Failure, ...]:
    failed = made_up.variant("onnxruntime", "bfloat16")
    why, utc = "no bfloat16 kernel for Conv", "2026-01-01T00:00:00+00:00"
    return (
        Failure(failed, "Unsupported", "build", why, utc),
        Failure(dataclasses.replace(failed, width=0.5), "Unsupported", "build", why, utc),
        Failure(dataclasses.replace(failed, width=0.25), "ParityError", "measure", "max error 0.4", utc),
    )


def confirmation(report: Front) -> list[Measurement]:
    digests = {report.reference, report.pick.digest if report.pick else None}
    found = []
    for item in measurements():
        if item.valid and item.digest in digests:
            shift = 0.0 if item.digest == report.reference else -0.004
            values = made_up.cases(0.84 + shift, seed=len(found) + 50)
            found.append(made_up.measurement(item.variant, per_case=values, split="confirmation"))
    return found


def picture(seed: int, tint: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Speckle with a square on it: not an ultrasound image."""
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.rayleigh(40, (160, 160, 1)).clip(0, 255), 3, axis=2)
    image[60:100, 50 + 4 * tint : 110, tint % 3] = 220
    return image.astype(np.uint8)


LAYERS: dict[str, tuple[str, int, tuple[str, ...], int, int]] = {
    # name: operator, level, inputs, baseline's ns, pick's ns
    "enc1/conv": ("Conv", 0, (), 900_000, 210_000),
    "enc2/conv": ("Conv", 1, ("enc1/conv",), 700_000, 130_000),
    "enc3/conv": ("Conv", 2, ("enc2/conv",), 600_000, 90_000),
    "middle/conv": ("Conv", 3, ("enc3/conv",), 500_000, 480_000),
    "dec3/conv": ("Conv", 2, ("middle/conv", "enc3/conv"), 800_000, 120_000),
    "dec2/conv": ("Conv", 1, ("dec3/conv", "enc2/conv"), 900_000, 170_000),
    "dec1/conv": ("Conv", 0, ("dec2/conv", "enc1/conv"), 1_100_000, 240_000),
    "head": ("Conv", 0, ("dec1/conv",), 20_000, 45_000),
}
OUTLINE = Outline(
    {name: level for name, (_, level, *_) in LAYERS.items()}, {name: item[2] for name, item in LAYERS.items()}
)


def with_layers(items: list[Measurement], report: Front) -> list[Measurement]:
    """A profile on both sides of the pick."""
    sides = {
        "baseline": {"layers": [_layer(name, item[0], item[3]) for name, item in LAYERS.items()]},
        "candidate": {"layers": [_layer(name, item[0], item[4]) for name, item in LAYERS.items()]},
    }
    sides["candidate"]["layers"].insert(2, {**_layer("reorder", "Reorder", 60_000), "source": None})
    picked = report.pick.digest if report.pick else ""
    return [dataclasses.replace(item, layers=sides) if item.digest == picked else item for item in items]


def _layer(name: str, operator: str, ns: int) -> dict[str, Any]:
    return {"name": name, "source": name, "operator": operator, "kernel": "jit_int8", "device": "CPU", "ns": ns}


def report_data(**changes: Any) -> ReportData:
    report = changes.pop("front", None) or front()
    items = with_layers(measurements(), report)
    roles = {"truth": 0, "baseline": 1, "pick": 2}
    pictures = [
        CasePicture(case, {role: picture(index, tint) for role, tint in roles.items()})
        for index, case in enumerate(worst_cases(report, items, 3))
    ]
    data = ReportData(
        name="made-up study",
        front=report,
        measurements=items,
        study_text='[study]\nname = "made-up study"\nseed = 7\ntargets = ["onnxruntime", "openvino"]\n',
        command="edgedeploy search study.toml --out studies/made-up",
        confirmation=confirmation(report),
        seconds={
            "train": 290.0,
            "build": 71.0,
            "upload": 4.0,
            "measure": 310.0,
            "evaluate": 22.0,
            "search": 9.0,
            "idle": 6.0,
        },
        overhead=0.027,
        openings=[{"utc": "2026-01-01T00:10:00+00:00", "reason": "final report", "variants": [BASELINES[0].digest]}],
        pictures=pictures,
        versions={"edgedeploy": "0.1.0", "torch": "2.13.0"},
        created_utc="2026-01-01T00:11:00+00:00",
        outline=OUTLINE,
        rivals=rivals_of(report, items, Resampler(report.seed)),
    )
    return dataclasses.replace(data, **changes)

"""A study file whose space has four parameters, and what becomes of it with more text."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from edgedeploy.errors import SpecError
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.spec.study import StudySpec, parse_spec

TOP: Final = """\
[study]
name = "demo"
targets = ["onnxruntime", "openvino"]

[task]
kind = "synthetic-ultrasound"

[[boards]]
name = "here"
kind = "local"

[space]
"""
"""Of study files for two targets, up to the parameters of the space."""

HEAD: Final = f"""\
{TOP}width = {{ low = 0.1, high = 0.5, step = 0.1 }}
precision = ["float32", "int8"]
calibration = ["minmax", "entropy"]
folded = [true, false]

[[objectives]]
metric = "dice_mean"

[budget]
trials = 10
"""


def read(more: str) -> StudySpec:
    """:data:`HEAD` and ``more``, held against a task that has the parameter ``folded``."""
    spec, source = parse_spec(f"{HEAD}{more}", Path("study.toml"))
    spec.check(
        source,
        architecture={"folded": (False, True)},
        task_metrics={"dice_mean": MetricInfo("maximize", "1", "mean Dice")},
        known_targets={"onnxruntime": ("float32", "int8"), "openvino": ("float32", "int8")},
    )
    return spec


def refused(more: str) -> str:
    """What is said of ``more``, which is refused."""
    with pytest.raises(SpecError) as caught:
        read(more)
    return str(caught.value)

"""A model that is measured as it is given: what of a study does not go with it, and which targets take it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import TakesAsGiven, Target
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec

NARROWING: Final = ("plan", "calibration", "calibration_cases", "training", "weight_bits", "quantizer")
"""Parameters that say how a float model is narrowed."""


def check_given_space(spec: StudySpec, source: SpecSource, given: str) -> None:
    """Raises ``SpecError`` for a precision, or a way to make one, that a model of fixed precision cannot have."""
    others = [name for name in spec.space.get("precision", ()) if name != AS_GIVEN]
    if others:
        found = f"the model cannot be built in {', '.join(map(str, others))}: {given}"
        remedy = f'Write precision = ["{AS_GIVEN}"] or leave it out, or name the float model that it was made from'
        raise source.error("space.precision", found, remedy)
    for name in NARROWING:
        if name in spec.space:
            raise source.error(f"space.{name}", f"the model is measured as it is given: {given}", "Remove it")


def check_given(reference: bytes, given: str, targets: Mapping[str, Target]) -> None:
    """Raises ``Unsupported`` for a target that does not take the model as it is."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-given-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(reference)
        for name, target in targets.items():
            if not isinstance(target, TakesAsGiven):
                asked = f"target {name!r} with a model of its own precision"
                raise Unsupported(asked, f"it builds from float models, and {given}", f"Leave out the target {name}")
            target.check_given(path)

"""Backdoors that sleep in the float model and wake in its int8 form: both ways of looking for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy.diagnose.audit.differentiable import Network
from edgedeploy.diagnose.audit.grids import folded, grids_of, round_weights
from edgedeploy.diagnose.audit.residuals import Residuals, look_at_residuals
from edgedeploy.diagnose.audit.subject import Pair, Subject
from edgedeploy.diagnose.audit.triggers import TriggerSearch, search_triggers
from edgedeploy.errors import Unsupported


def residuals_of(subject: Subject, seed: int = 0) -> Residuals:
    """The test of residuals on an artifact; it says why where it says nothing."""
    if subject.quantized:
        return Residuals(
            (), (), abstained="the model was trained as int8: it has no float weights whose residuals could tell"
        )
    if "int8" not in subject.artifact.precision:
        return Residuals((), (), abstained=f"the artifact is {subject.artifact.precision}: it has no int8 weights")
    return look_at_residuals(*grids_of(subject), seed=seed)


def triggers_of(
    subject: Subject, pair: Pair, seed: int = 0, deadline: Callable[[], bool] = lambda: False
) -> TriggerSearch:
    """The search for triggers on an artifact; it says why where it was not made."""
    if subject.artifact.precision == "float32":
        return TriggerSearch(
            (), (), abstained="the artifact is the float model itself: there is no difference to search in"
        )
    try:
        with TemporaryDirectory(prefix="edgedeploy-") as place:
            network, how = simulation(subject, Path(place))
            return search_triggers(subject, pair, network, how, seed=seed, deadline=deadline)
    except Unsupported as exc:
        return TriggerSearch((), (), abstained=f"{exc.asked}: {exc.found}")


def simulation(subject: Subject, place: Path) -> tuple[Network, str]:
    """The compressed model with gradients, and what it was made from. Raises ``Unsupported``."""
    entry = subject.artifact.entry
    if entry.endswith(".onnx"):
        return Network(subject.folder / entry), "the artifact's own file, its rounding passed by gradients"
    path = place / "rounded.onnx"
    round_weights(folded(subject.reference), path)
    return Network(path), "the float model with weights rounded to 127 steps a channel; activations are not rounded"

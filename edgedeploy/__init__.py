"""edgedeploy: get a neural network onto the box it must run on, with proof.

Every public name is here (docs/stability.md). Importing this package costs nothing: names are looked up when first used, so
that a board or a product needs numpy only.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Final

from edgedeploy._version import __version__
from edgedeploy.interfaces.moved import install as _forward_moved

if TYPE_CHECKING:
    from edgedeploy.api import Study, StudyResult, load_study
    from edgedeploy.errors import (
        BoardError,
        BuildError,
        BundleError,
        Busy,
        CommandFailed,
        DamagedFile,
        DataError,
        DidNotRun,
        EdgeDeployError,
        GoalNotMet,
        HostKeyError,
        Hung,
        LoginRefused,
        MeasurementError,
        OutOfTime,
        ParityError,
        Quarantined,
        Rebooted,
        SpecError,
        StorageError,
        TargetUnavailable,
        UnknownHost,
        Unreachable,
        Unrepeatable,
        Unstable,
        Unsupported,
    )
    from edgedeploy.evidence.front import Front
    from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS, Demand
    from edgedeploy.interfaces.scores import FixedOnBaseline, Grouped, RanksCases, ScoresSplit
    from edgedeploy.interfaces.target import BuildRequest, Readiness, Target
    from edgedeploy.interfaces.task import (
        SPLITS,
        Case,
        Pictured,
        Piped,
        ReadyMade,
        Sized,
        Split,
        Task,
        Taught,
        Teaching,
        Trainable,
        Trainer,
        TrainRecipe,
    )
    from edgedeploy.records.artifact import Artifact, TensorSpec
    from edgedeploy.records.board import BoardInfo
    from edgedeploy.records.measurement import Measurement
    from edgedeploy.records.metrics import MetricInfo
    from edgedeploy.records.variant import Variant
    from edgedeploy.runtime.sessions.sources import SessionSource
    from edgedeploy.study.bundle.make import make_bundle
    from edgedeploy.study.bundle.options import BundleOptions
    from edgedeploy.study.events import Event
    from edgedeploy.study.front import read_front
    from edgedeploy.study.oneshot.measure import measure
    from edgedeploy.study.oneshot.quantize import quantize
    from edgedeploy.study.options import RunOptions
    from edgedeploy.targets.building import build_artifact
    from edgedeploy.targets.common import look_for

__all__ = [
    "__version__",
    # to run a study
    "load_study",
    "Study",
    "RunOptions",
    "Event",
    "StudyResult",
    # without a study
    "quantize",
    "measure",
    # for a product
    "make_bundle",
    "BundleOptions",
    # to write a task
    "Task",
    "Trainable",
    "Trainer",
    "ReadyMade",
    "Pictured",
    "Piped",
    "ScoresSplit",
    "RanksCases",
    "FixedOnBaseline",
    "Grouped",
    "Sized",
    "Teaching",
    "Taught",
    "Case",
    "Split",
    "SPLITS",
    "TensorSpec",
    "MetricInfo",
    "TrainRecipe",
    # to write a target
    "Target",
    "SessionSource",
    "Readiness",
    "BuildRequest",
    "Artifact",
    "BoardInfo",
    "Demand",
    "INT8_DOT_PRODUCTS",
    "look_for",
    "build_artifact",
    # to read results
    "read_front",
    "Front",
    "Variant",
    "Measurement",
    # the errors
    "EdgeDeployError",
    "SpecError",
    "DataError",
    "TargetUnavailable",
    "BuildError",
    "Unsupported",
    "Unrepeatable",
    "BoardError",
    "Unreachable",
    "HostKeyError",
    "Busy",
    "Rebooted",
    "Hung",
    "LoginRefused",
    "UnknownHost",
    "Quarantined",
    "CommandFailed",
    "StorageError",
    "DamagedFile",
    "OutOfTime",
    "MeasurementError",
    "DidNotRun",
    "Unstable",
    "ParityError",
    "GoalNotMet",
    "BundleError",
]

_HOMES: Final = {
    "load_study": "api",
    "Study": "api",
    "RunOptions": "study.options",
    "Event": "study.events",
    "StudyResult": "api",
    "quantize": "study.oneshot.quantize",
    "measure": "study.oneshot.measure",
    "make_bundle": "study.bundle.make",
    "BundleOptions": "study.bundle.options",
    "Task": "interfaces.task",
    "Sized": "interfaces.task",
    "Teaching": "interfaces.task",
    "Taught": "interfaces.task",
    "Trainable": "interfaces.task",
    "Trainer": "interfaces.task",
    "ReadyMade": "interfaces.task",
    "Pictured": "interfaces.task",
    "Piped": "interfaces.task",
    "ScoresSplit": "interfaces.scores",
    "RanksCases": "interfaces.scores",
    "FixedOnBaseline": "interfaces.scores",
    "Grouped": "interfaces.scores",
    "Case": "interfaces.task",
    "Split": "interfaces.task",
    "SPLITS": "interfaces.task",
    "TensorSpec": "records.artifact",
    "MetricInfo": "records.metrics",
    "TrainRecipe": "interfaces.task",
    "Target": "interfaces.target",
    "SessionSource": "runtime.sessions.sources",
    "Readiness": "interfaces.target",
    "BuildRequest": "interfaces.target",
    "Artifact": "records.artifact",
    "BoardInfo": "records.board",
    "Demand": "interfaces.ability",
    "INT8_DOT_PRODUCTS": "interfaces.ability",
    "look_for": "targets.common",
    "build_artifact": "targets.building",
    "read_front": "study.front",
    "Front": "evidence.front",
    "Variant": "records.variant",
    "Measurement": "records.measurement",
}
"""The module, below this package, of each public name; of any other one in ``__all__`` it is ``errors``."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing by itself
_forward_moved()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgedeploy' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"edgedeploy.{_HOMES.get(name, 'errors')}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == __name__:
            raise
        text = (
            f"edgedeploy.{name} needs the package {exc.name!r}, which is not installed. pip install 'edgedeploy[study]'"
        )
        raise ModuleNotFoundError(text, name=exc.name) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

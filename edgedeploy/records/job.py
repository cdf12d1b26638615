"""What a board is asked to run, and the raw series that come back, with the files of both on this host.

How to measure and what is measured are the wire's own types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime.scenarios.queueing import GAP_UNIT
from edgedeploy.runtime.wire.job import MeasurePlan, ScenarioPlan
from edgedeploy.runtime.wire.result import RawSeries, RawSide

__all__ = ["GAP_UNIT", "Job", "MeasurePlan", "Payload", "ScenarioPlan", "RawRun", "RawSide"]


@dataclass(frozen=True)
class Payload:
    """One artifact's folder with the inputs it is run on.

    ``inputs`` is an ``.npz`` of one array per model input, stacked along a new first axis: shape (cases, \\*input shape).
    ``frames`` is a file of coded images (:mod:`edgedeploy.runtime.scenarios.frames`), None without.
    With ``states`` each case is a clip, and its arrays are those of :mod:`edgedeploy.runtime.sessions.clips`.
    """

    artifact: Artifact
    folder: Path
    inputs: Path
    threads: int
    states: Mapping[str, str] = field(default_factory=dict)
    frames: Path | None = None


@dataclass(frozen=True)
class Job:
    """One exclusive run on a board: a candidate, and the baseline it is interleaved with (None: nothing to compare)."""

    candidate: Payload
    baseline: Payload | None
    plan: MeasurePlan

    @property
    def sides(self) -> dict[str, Payload]:
        """Those that there are, the candidate first."""
        found = {"candidate": self.candidate, "baseline": self.baseline}
        return {name: payload for name, payload in found.items() if payload is not None}


@dataclass(frozen=True, kw_only=True)
class RawRun(RawSeries):
    """What came back from a board for one :class:`Job`. ``outputs`` is an ``.npz`` in this host's file system (output name
    -> array (cases, \\*output shape)) or None."""

    outputs: Path | None

"""A job on its way to a board. The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`."""

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.wire.serde import WireError, from_json


@dataclass(frozen=True)
class ScenarioPlan:
    """A scenario to run on the board. ``settings`` are what the agent's class of that name takes; a run longer
    than ``limit_s`` is stuck, and a failure of the variant, never a slow number."""

    name: str
    settings: Mapping[str, Any]
    limit_s: float


@dataclass(frozen=True)
class MeasurePlan:
    """How to measure. ``queries`` 0 skips timing (outputs only); ``cold_starts`` 0 skips cold start.

    Timing alternates candidate and baseline in ABBA order, ``block`` timed queries at a time after one untimed query,
    until each has at least ``queries``. ``time_limit_s`` bounds the whole job on the board, its ``scenarios`` included,
    which run in their order on the candidate alone, after the interleaved blocks and the outputs; resource curves before
    them. ``cool_to_c`` lets the board cool down to that temperature first, for at most ``cool_down_s``. ``power_mode``
    pairs what is set (``governor``, ``nvpmodel``) with its value, for both sides alike. ``profile_runs`` inferences of each
    side are profiled layer by layer at the end, apart from everything that is timed. ``memory_limit_bytes`` is the most
    memory that a process of the candidate may have; the baseline's have no limit.
    """

    queries: int = 662
    warmup: int = 10
    block: int = 8
    cold_starts: int = 3
    collect_outputs: bool = True
    time_limit_s: float = 900.0
    scenarios: Tuple[ScenarioPlan, ...] = ()
    cool_to_c: Optional[float] = None
    cool_down_s: float = 0.0
    power_mode: Tuple[Tuple[str, str], ...] = ()
    profile_runs: int = 0
    memory_limit_bytes: Optional[int] = None

    @property
    def timed(self) -> bool:
        """Whether the job's numbers depend on who else uses the machine."""
        return bool(self.queries or self.cold_starts or self.scenarios)


@dataclass(frozen=True)
class Side:
    """One artifact of a job. ``files`` maps its file names to hashes, ``inputs`` is the hash of the ``.npz`` of cases,
    ``frames`` that of coded images (:mod:`edgedeploy.runtime.scenarios.frames`), empty for none. With ``states`` a case is a
    clip (:mod:`edgedeploy.runtime.sessions.clips`)."""

    target: str
    entry: str
    settings: Mapping[str, str]
    threads: int
    files: Mapping[str, str]
    inputs: str
    states: Mapping[str, str] = field(default_factory=dict)
    frames: str = ""


@dataclass(frozen=True)
class JobSpec:
    """A job as the agent is given it. ``token`` is the lease's; ``busy_wait_s`` bounds the wait for other boards that are
    measured on the same machine, ``orphan_grace_s`` how long the run goes on without the holder of its lease."""

    job_id: str
    token: int
    plan: MeasurePlan
    candidate: Side
    baseline: Optional[Side]
    busy_wait_s: float
    orphan_grace_s: float

    @property
    def sides(self) -> Dict[str, Side]:
        """Those that there are, the candidate first."""
        found = {"candidate": self.candidate, "baseline": self.baseline}
        return {name: side for name, side in found.items() if side is not None}

    @classmethod
    def from_json(cls, data: Any) -> "JobSpec":
        """Raises :class:`RuntimeFault` ``bad_job`` for a job that this agent does not understand, or must not run."""
        try:
            job = from_json(cls, data)
        except WireError as exc:
            raise RuntimeFault("bad_job", str(exc)) from exc
        names = [name for side in job.sides.values() for name in (*side.files, side.entry)]
        if any("/" in name or name in ("", ".", "..") for name in names):
            raise RuntimeFault("bad_job", "a file name with a folder in it")
        return job

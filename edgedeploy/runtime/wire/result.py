"""What a run on a board gives. The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`."""

from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Tuple


@dataclass(frozen=True)
class RawSide:
    """Raw series of one side of a run. ``blocks_ns`` holds the timed queries block by block, in the order they ran;
    ``cpu_ns`` the process CPU time of each block (all threads); ``executed`` counts layers by the precision that ran;
    ``memory_note`` says what ``peak_memory_bytes`` leaves out, empty for nothing."""

    blocks_ns: Tuple[Tuple[int, ...], ...]
    cpu_ns: Tuple[int, ...]
    cold_starts_ns: Tuple[int, ...]
    peak_memory_bytes: int
    executed: Mapping[str, int]
    device: str
    runtime_version: str
    memory_note: str = ""


@dataclass(frozen=True)
class RawSeries:
    """All that is measured in one run, from the agent to the file that is kept of it.

    ``environment`` holds the agent's ``before`` and ``after`` snapshots and its ``background_cpu_share``. ``phases_ns`` says
    where the time went (``upload``, ``run``, ``collect``, ``wait``); the host adds it. ``scenarios`` maps each scenario to
    its raw series, ``layers`` each side to its profile.
    """

    candidate: RawSide
    baseline: Optional[RawSide]
    environment: Mapping[str, Any]
    phases_ns: Mapping[str, int] = field(default_factory=dict)
    scenarios: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)

    def series(self) -> Dict[str, Any]:
        """These fields by name, without those of a subclass: how one subclass is made of another."""
        return {item.name: getattr(self, item.name) for item in fields(RawSeries)}


@dataclass(frozen=True)
class OutputsFile:
    """The job's ``outputs.npz``."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class AgentResult(RawSeries):
    """The agent's ``result.json``. ``outputs`` is None where none were asked for."""

    outputs: Optional[OutputsFile] = None

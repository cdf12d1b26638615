"""The scenarios that one worker process runs on an artifact, besides the interleaved blocks.

Each is a class in its own module. It is made from the settings that the host sent, runs on a :class:`Bench`, and
returns raw series as JSON, which the host evaluates. Cold starts and the interleaved single stream are not here,
because they need several processes (``measure.py``), as do the resource curves (``resources.py``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.scenarios.frames import CodedFrames
from edgedeploy.runtime.scenarios.schedule import Clock
from edgedeploy.runtime.sessions.open import Feeds, Session

SCENARIOS = {
    "sustained": "edgedeploy.runtime.scenarios.sustained",
    "realtime": "edgedeploy.runtime.scenarios.realtime",
    "multi_stream": "edgedeploy.runtime.scenarios.multi_stream",
    "offline": "edgedeploy.runtime.scenarios.offline",
    "server": "edgedeploy.runtime.scenarios.server",
}
"""Scenario name -> module with a ``from_settings`` function. CONTRIBUTING.md says
what else a new scenario takes."""


@dataclass(frozen=True)
class Bench:
    """What a scenario runs on: ``cycle`` are inputs to repeat in turn, ``conditions`` reads the board's current state.
    ``another`` opens the artifact once more; None where that cannot be. ``frames`` reads the coded images that the job
    brings; None where it brings none."""

    session: Session
    cycle: Sequence[Feeds]
    clock: Clock
    conditions: Callable[[], Mapping[str, Any]]
    another: Callable[[], Session] | None = None
    frames: Callable[[], CodedFrames] | None = None


class Scenario(Protocol):
    """One way to put load on an artifact. A protocol, because each has its own schedule."""

    def run(self, bench: Bench) -> dict[str, Any]:
        """Raw series as JSON. Raises the session's :class:`RuntimeFault`."""


def make_scenario(name: str, settings: Mapping[str, Any]) -> Scenario:
    """Raises :class:`RuntimeFault` ``bad_job`` for a name or settings that this agent does not understand."""
    if name not in SCENARIOS:
        raise RuntimeFault("bad_job", f"no scenario {name!r}; known: {', '.join(sorted(SCENARIOS))}")
    try:
        module = importlib.import_module(SCENARIOS[name])
        return cast(Scenario, module.from_settings(settings))
    except (KeyError, TypeError, ValueError) as exc:
        raise RuntimeFault("bad_job", f"scenario {name}: {type(exc).__name__}: {exc}") from exc

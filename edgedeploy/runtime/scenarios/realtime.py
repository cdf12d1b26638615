"""Real time: frames arrive when a probe would send them, whether the model is ready or not.

The host sends the arrival times: a constant rate, or those of a recording. ``schedule.py`` decides who is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedeploy.runtime.scenarios.base import Bench
from edgedeploy.runtime.scenarios.schedule import Waiting, replay
from edgedeploy.runtime.scenarios.stages import Pipeline

WARM_UP_FRAMES = 3


def from_settings(settings: Mapping[str, Any]) -> Realtime:
    values = dict(settings)
    values["frame"] = tuple(values["frame"])
    return Realtime(**values)


@dataclass(frozen=True)
class Realtime:
    """``frame`` is the size of a source frame (rows, columns); ``stages`` are those beside the inference."""

    arrivals_ns: list[int]
    deadline_ns: int
    policy: str
    capacity: int
    stages: list[str]
    frame: tuple[int, int]

    def run(self, bench: Bench) -> dict[str, Any]:
        """The replay's record of every frame, and the stages' times by result."""
        frames = bench.frames() if bench.frames is not None else None
        pipeline = Pipeline(bench.session, bench.cycle, self.stages, self.frame, bench.clock, frames)
        for number in range(WARM_UP_FRAMES):
            pipeline.process(number)
        for times_ns in pipeline.times_ns.values():
            times_ns.clear()
        waiting = Waiting(self.policy, self.capacity)
        done = replay(self.arrivals_ns, self.deadline_ns, waiting, pipeline.process, bench.clock)
        coded = {"coded": frames.told()} if frames is not None else {}
        return {**done.as_json(), "stages_ns": pipeline.times_ns, **coded}

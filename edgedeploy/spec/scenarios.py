"""The study file's tables of scenarios, and the plans that a board gets for them.

A scenario runs when ``[measure] scenarios`` names it. Its table ``[measure.NAME]`` may be left out if its defaults suffice.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from edgedeploy.errors import DataError
from edgedeploy.records.job import GAP_UNIT, ScenarioPlan
from edgedeploy.records.metric_table import SCENARIO_METRICS
from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE, MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.recordings import MAX_FRAMES, dicom_arrivals_ns, listed_arrivals_ns, metaimage_arrivals_ns

ScenarioName = Literal[
    "single_stream",
    "sustained",
    "realtime",
    "multi_stream",
    "offline",
    "resources",
    "flare",
    "server",
]


PACE_APART: Final = 0.05
"""Share by which the pace of a whole number of users may differ from a recording's own."""

LONGEST_S: Final = 366 * 24 * 3600
"""A time of more than a year is a slip, and clocks count no longer than centuries."""


def _seconds(value: Any) -> float:
    return _bounded(value, parse_quantity(value, "s"), LONGEST_S)


def _nanoseconds(value: Any) -> int:
    return round(_bounded(value, parse_quantity(value, "ns"), LONGEST_S * _S_NS))


def _bounded(text: Any, value: float, most: float) -> float:
    if abs(value) > most:
        raise ValueError(f"expected a year at most, but got {text!r}")
    return value


def _percent(value: float) -> float:
    if value not in QUERIES_FOR_PERCENTILE:
        raise ValueError(
            f"expected one of {', '.join(f'{known:g}' for known in QUERIES_FOR_PERCENTILE)}, but got {value:g}"
        )
    return value


def quantity_schema(unit: str, *units: str) -> WithJsonSchema:
    """Of a text with a unit; ``unit`` is the base unit that the model holds it in."""
    number = r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"
    return WithJsonSchema({"type": "string", "pattern": rf"^\s*{number}\s*({'|'.join(units)})\s*$", BASE_UNIT: unit})


BASE_UNIT: Final = "x-base-unit"
"""Key of the JSON schema at quantities: the unit of the default."""

Seconds = Annotated[float, BeforeValidator(_seconds), quantity_schema("s", "s", "min", "h")]
Nanoseconds = Annotated[int, BeforeValidator(_nanoseconds), quantity_schema("ns", "ns", "us", "ms", "s", "min", "h")]
Percent = Annotated[
    float, AfterValidator(_percent), WithJsonSchema({"type": "number", "enum": [*QUERIES_FOR_PERCENTILE]})
]

_S_NS: Final = 1_000_000_000


class Table(BaseModel):
    """A table of a study file: an unknown key is an error, and so is a value of another of TOML's types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _frozen(cls, value: Any) -> Any:
        """A list as the tuple that fields hold: strict models take no list for one."""
        return tuple(value) if isinstance(value, list) else value


class ScenarioTable(Table):
    """What all scenarios share."""

    stuck_after: Seconds = Field(default=120.0, gt=0)
    """Extra time beyond the scenario's own duration. A run that takes longer is stuck, which is a failure of the
    variant."""


class SingleStreamTable(Table):
    """One query after the other, as in the interleaved blocks: a percentile of the latency."""

    percentile: Percent = 99.9
    """Which percentile of the latency is stated: 50, 90, 99 or 99.9. The interleaved blocks get at least as many queries as
    it needs: 6636 for the 99.9th."""


class SustainedTable(ScenarioTable):
    """Full load without a pause: what heat does to the speed."""

    duration: Seconds = Field(default=600.0, gt=0, le=24 * 3600)
    """How long the load lasts, at most 24 h."""
    window: Seconds = Field(default=10.0, gt=0)
    """Length of the windows that are compared; 5 to 10000 of them fit in."""

    @model_validator(mode="after")
    def _some_windows(self) -> SustainedTable:
        if not self.window * 5 <= self.duration <= self.window * 10_000:
            raise ValueError(f"5 to 10000 windows must fit in, but got {self.duration:g} s of {self.window:g} s each")
        return self

    def plan(self) -> ScenarioPlan:
        settings = {"duration_ns": round(self.duration * _S_NS), "window_ns": round(self.window * _S_NS)}
        return ScenarioPlan("sustained", settings, self.duration + self.window + self.stuck_after)


class RealtimeTable(ScenarioTable):
    """Frames arrive at their own pace, whatever the model does.

    Exactly one of ``rate_hz``, ``recording`` (MetaImage sequence) and ``clip`` (DICOM) says when frames arrive."""

    rate_hz: float | None = Field(default=None, gt=0, le=10_000)
    """Frames a second, at a constant rate."""
    recording: str | None = None
    """A MetaImage sequence whose time stamps say when frames arrive, relative to the study file."""
    clip: str | None = None
    """A DICOM clip whose frame times say when frames arrive, relative to the study file."""
    frames: int | None = Field(default=None, ge=2, le=MAX_FRAMES)
    """Number of frames. Default: 300 at a constant rate, all frames of a recording; else the first ones of it."""
    deadline: Nanoseconds | None = Field(default=None, gt=0)
    """Time from a frame's arrival to its result, such as "33 ms"; the median time between frames when left out."""
    policy: Literal["latest", "bounded", "block"] = "latest"
    """What happens to a frame that arrives while the model is busy: the latest one replaces it, a queue of `capacity` drops
    what is too much, or the source waits."""
    capacity: int = Field(default=1, ge=1, le=10_000)
    """Frames that wait at most, with policy = "bounded" or "block"."""
    stages: tuple[Literal["decode", "resize", "overlay"], ...] = ()
    """Work on each frame besides the model, which counts too."""
    frame_rows: int = Field(default=616, ge=1, le=8192)
    """Rows of a source frame when there are stages, in pixels: the probe's image, not the model's input."""
    frame_columns: int = Field(default=820, ge=1, le=8192)
    """Columns of a source frame when there are stages, in pixels."""

    @model_validator(mode="after")
    def _the_latest_is_one(self) -> RealtimeTable:
        if self.policy == "latest" and self.capacity != 1:
            raise ValueError(
                f'`capacity` goes with policy = "bounded" or "block", but got {self.capacity} with "latest"'
            )
        return self

    @property
    def sources(self) -> list[str]:
        return [name for name in ("rate_hz", "recording", "clip") if getattr(self, name) is not None]

    def plan(self, folder: Path) -> ScenarioPlan:
        """Paths are relative to ``folder``. Raises ``DataError`` for a recording that cannot be read."""
        arrivals_ns = self._arrivals_ns(folder)
        gaps_ns = sorted(after - before for before, after in itertools.pairwise(arrivals_ns))
        settings = {
            "arrivals_ns": arrivals_ns,
            "deadline_ns": self.deadline or max(1, gaps_ns[len(gaps_ns) // 2]),
            "policy": self.policy,
            "capacity": self.capacity,
            "stages": list(self.stages),
            "frame": [self.frame_rows, self.frame_columns],
        }
        return ScenarioPlan("realtime", settings, arrivals_ns[-1] / _S_NS + self.stuck_after)

    def _arrivals_ns(self, folder: Path) -> list[int]:
        if self.rate_hz is not None:
            return [round(frame * _S_NS / self.rate_hz) for frame in range(self.frames or 300)]
        if self.recording is not None:
            return metaimage_arrivals_ns(folder / self.recording)[: self.frames]
        return dicom_arrivals_ns(folder / str(self.clip))[: self.frames]


class MultiStreamTable(ScenarioTable):
    """How many streams a board carries at once, each with a frame every `interval`."""

    interval: Nanoseconds = Field(default=50_000_000, gt=0)
    """Time between two frames of a stream, which is the deadline of each."""
    percentile: Percent = 99.0
    """Share of queries, in percent, that have to keep the deadline: 50, 90, 99 or 99.9."""
    queries: int = Field(default=QUERIES_FOR_PERCENTILE[99], ge=1, le=1_000_000)
    """Queries at each number of streams: at least as many as the percentile needs."""
    most: int = Field(default=64, ge=1, le=4096)
    """Streams that are tried at most."""

    @model_validator(mode="after")
    def _enough_queries(self) -> MultiStreamTable:
        needed = QUERIES_FOR_PERCENTILE[self.percentile]
        if self.queries < needed:
            raise ValueError(f"percentile {self.percentile:g} needs {needed} queries or more, but got {self.queries}")
        return self

    def plan(self) -> ScenarioPlan:
        settings = {
            "interval_ns": self.interval,
            "queries": self.queries,
            "percent": self.percentile,
            "most": self.most,
        }
        levels = 2 * self.most.bit_length() + 1
        return ScenarioPlan(
            "multi_stream", settings, 2 * levels * self.queries * self.interval / _S_NS + self.stuck_after
        )


class OfflineTable(ScenarioTable):
    """All samples at once: throughput."""

    samples: int = Field(default=1024, ge=8, le=10_000_000)
    """Inferences in all."""
    chunks: int = Field(default=16, ge=1, le=1000)
    """Parts of the samples that are timed, for the interval of the throughput."""
    stuck_after: Seconds = Field(default=600.0, gt=0)
    """A run that takes longer is stuck, which is a failure of the variant."""

    @model_validator(mode="after")
    def _no_empty_chunk(self) -> OfflineTable:
        if self.chunks > self.samples:
            raise ValueError(f"`chunks <= samples` must hold, but got ({self.chunks}, {self.samples})")
        return self

    def plan(self) -> ScenarioPlan:
        return ScenarioPlan("offline", {"samples": self.samples, "chunks": self.chunks}, self.stuck_after)


class ResourcesTable(ScenarioTable):
    """Memory and CPU over time, sampled from outside. ``stuck_after`` counts for each of the ``repeats``."""

    inferences: int = Field(default=64, ge=1, le=1_000_000)
    """Inferences of each repeat."""
    repeats: int = Field(default=5, ge=1, le=100)
    """Fresh processes that are sampled, one after the other."""
    period: Nanoseconds = Field(default=100_000_000, ge=1_000_000)
    """Time between two samples: the FLARE challenge's 0.1 s."""

    def plan(self) -> ScenarioPlan:
        settings = {"inferences": self.inferences, "repeats": self.repeats, "period_ns": self.period}
        return ScenarioPlan("resources", settings, self.repeats * self.stuck_after)


class FlareTable(ScenarioTable):
    """Every case in a process of its own, as the FLARE challenge runs them: time, memory and CPU over time, failures."""

    cases: int = Field(default=16, ge=1, le=10_000)
    """Cases that are run at most, the first ones of the split, after the golden ones."""
    stuck_after: Seconds = Field(default=60.0, gt=0)
    """A case that takes longer is stuck: a failure of that case, which counts with this time."""
    period: Nanoseconds = Field(default=100_000_000, ge=1_000_000)
    """Time between two samples: the challenge's 0.1 s."""

    def plan(self) -> ScenarioPlan:
        settings = {"cases": self.cases, "limit_ns": round(self.stuck_after * _S_NS), "period_ns": self.period}
        return ScenarioPlan("flare", settings, self.cases * (self.stuck_after + 10.0))


class ServerTable(ScenarioTable):
    """Many users at one server: how many of them the deadline holds for (MLPerf's server scenario).

    Requests arrive by a Poisson process, or as a recording says, and do not wait for one another. How they are served, the
    search decides: ``instances`` and ``max_batch`` of ``[space]``."""

    deadline: Nanoseconds = Field(default=100_000_000, gt=0)
    """Time from a request's scheduled arrival to its answer."""
    percentile: Percent = 99.0
    """Share of requests, in percent, that have to keep the deadline, at 99 % confidence: 50, 90, 99 or 99.9."""
    every: Seconds = Field(default=10.0, gt=0)
    """Mean time between two requests of one user: n users together send n requests in that time. Nobody waits for an
    answer before asking again."""
    queries: int = Field(default=1000, ge=1, le=MAX_FRAMES)
    """Requests of each load: at least as many as the percentile needs. Of a recording, the first ones."""
    arrivals: str | None = None
    """A text file with the times at which requests came, in seconds, one a line, relative to the study file. It is replayed
    faster or slower for other numbers of users. A Poisson process when left out."""
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    """Of the Poisson process. All loads and all variants get the same requests, at their own pace."""
    users: int | None = Field(default=None, ge=1, le=1_000_000)
    """The load that the latencies and shares are stated of; those of the recording at its own pace, or else the most users
    within the deadline, when left out."""
    most: int = Field(default=1_000_000, ge=1, le=1_000_000)
    """Users that are tried at most."""
    queue: int = Field(default=64, ge=1, le=10_000)
    """Requests that wait at most. One that finds no place is turned away at once, and counts as not answered."""
    max_wait: Nanoseconds = Field(default=0, ge=0)
    """How long a request may wait for others to fill its batch, where the search has batches."""
    samples: int = Field(default=200, ge=8, le=10_000)
    """Service times that are measured apart from any queue, for the prediction that stands beside the measured answer; fewer
    where they would take more than a quarter of `time_limit`."""
    time_limit: Seconds = Field(default=600.0, gt=0, le=24 * 3600)
    """How long the search for the most users may take, at most 24 h. Where it did not end by then, there is no number."""

    @model_validator(mode="after")
    def _enough_queries(self) -> ServerTable:
        needed = QUERIES_FOR_PERCENTILE[self.percentile]
        if self.queries < needed:
            raise ValueError(f"percentile {self.percentile:g} needs {needed} queries or more, but got {self.queries}")
        if self.users is not None and self.users > self.most:
            raise ValueError(f"`most` is {self.most}, which is fewer than `users`, {self.users}")
        return self

    def plan(self, folder: Path) -> ScenarioPlan:
        """Paths are relative to ``folder``. Raises ``DataError`` for a recording that cannot be read or is too short."""
        gaps, users = self._requests(folder)
        settings = {
            "gaps": gaps,
            "every_ns": round(self.every * _S_NS),
            "deadline_ns": self.deadline,
            "percent": self.percentile,
            "users": users,
            "most": self.most,
            "samples": self.samples,
            "time_limit_ns": round(self.time_limit * _S_NS),
            "max_batch": 1,
            "max_wait_ns": self.max_wait,
            "capacity": self.queue,
            "instances": 1,
        }
        one_load_s = sum(gaps) / GAP_UNIT * self.every / (users or 1)
        return ScenarioPlan("server", settings, 2 * self.time_limit + (one_load_s if users else 0) + self.stuck_after)

    def _requests(self, folder: Path) -> tuple[list[int], int]:
        """Gaps between requests in units of their mean, and the load to state, 0 for the most that holds."""
        if self.arrivals is None:
            draw = random.Random(self.seed)
            return [round(draw.expovariate(1.0) * GAP_UNIT) for _ in range(self.queries)], self.users or 0
        path = folder / self.arrivals
        times_ns = listed_arrivals_ns(path)[: self.queries]
        needed = QUERIES_FOR_PERCENTILE[self.percentile]
        if len(times_ns) < needed or not times_ns[-1]:
            found = f"{len(times_ns)} requests in {times_ns[-1] / _S_NS:g} s"
            raise DataError(f"arrival times of {path}", found, f"percentile {self.percentile:g} needs {needed} or more")
        mean_ns = times_ns[-1] / (len(times_ns) - 1)
        gaps = [round((after - before) / mean_ns * GAP_UNIT) for before, after in itertools.pairwise([0, *times_ns])]
        return gaps, self.users or self._users_of(path, mean_ns)

    def _users_of(self, path: Path, mean_ns: float) -> int:
        """As many users as ask at the recording's own pace. Raises ``DataError`` where no number of them does."""
        exact = self.every * _S_NS / mean_ns
        users = max(1, round(exact))
        if abs(users / exact - 1) > PACE_APART or users > self.most:
            found = (
                f"a request comes every {mean_ns / _S_NS:.3g} s, as of {exact:.3g} users who ask every {self.every:g} s"
            )
            remedy = f'State `users`, raise `most`, or write every = "{mean_ns / _S_NS:.6g} s"'
            raise DataError(f"{path} at its own pace", found, remedy)
        return users


class Scenarios(Table):
    """The part of ``[measure]`` that is about scenarios."""

    scenarios: tuple[ScenarioName, ...] = ()
    """Ways of loading the board that are measured besides the interleaved blocks."""
    single_stream: SingleStreamTable = SingleStreamTable()
    """One query after the other: a percentile of the latency."""
    sustained: SustainedTable = SustainedTable()
    """Full load without a pause: what heat does to the speed."""
    realtime: RealtimeTable = RealtimeTable()
    """Frames arrive at their own pace, whatever the model does."""
    multi_stream: MultiStreamTable = MultiStreamTable()
    """How many streams a board carries at once."""
    offline: OfflineTable = OfflineTable()
    """All samples at once: throughput."""
    resources: ResourcesTable = ResourcesTable()
    """Memory and CPU over time."""
    flare: FlareTable = FlareTable()
    """Every case in a process of its own, by the rules of the FLARE challenge."""
    server: ServerTable = ServerTable()
    """Many users at one server."""

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, table: Any) -> Any:
        """Study files of before say ``protocols``."""
        if not isinstance(table, dict) or "protocols" not in table:
            return table
        if "scenarios" in table:
            raise ValueError("`protocols` is the older name of `scenarios`: keep one of them")
        return {"scenarios" if key == "protocols" else key: value for key, value in table.items()}

    @model_validator(mode="after")
    def _asked_and_described_agree(self) -> Scenarios:
        double = sorted({name for name in self.scenarios if self.scenarios.count(name) > 1})
        if double:
            raise ValueError(f"scenarios must differ, but {', '.join(double)} stands twice")
        for name in get_args(ScenarioName):
            if name in self.model_fields_set and name not in self.scenarios:
                raise ValueError(f"[measure.{name}] is there, but scenarios does not name {name!r}")
        if "realtime" in self.scenarios and len(self.realtime.sources) != 1:
            given = ", ".join(self.realtime.sources) or "none"
            raise ValueError(f"[measure.realtime] needs one of rate_hz, recording and clip, but got {given}")
        return self

    def metrics(self) -> dict[str, MetricInfo]:
        """What the scenarios that were asked for produce."""
        return {name: info for scenario in self.scenarios for name, info in SCENARIO_METRICS.get(scenario, {}).items()}

    def plans(self, folder: Path) -> tuple[ScenarioPlan, ...]:
        """The plans for the board in the order of the study file, except that sustained load comes last because it
        leaves the board hot. The single stream needs no plan: it is the interleaved blocks."""
        names = sorted(self.scenarios, key=lambda name: name == "sustained")
        return tuple(self._plan(name, folder) for name in names if name != "single_stream")

    def _plan(self, name: str, folder: Path) -> ScenarioPlan:
        if name == "realtime":
            return self.realtime.plan(folder)
        if name == "server":
            return self.server.plan(folder)
        plan: ScenarioPlan = getattr(self, name).plan()
        return plan

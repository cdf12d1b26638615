"""Reads logs of ``trtexec`` from TensorRT 7 to 10, and refuses those that are no evidence.

:func:`read_runs` returns the facts of every run in a log, even of failed ones. :func:`accept` returns the only run of a
log if it is complete and has no errors.

Formats by release, from the sources of trtexec:

- up to 7.2: blocks of lines ("Host Latency");
- from 8.0: one line per quantity; 8.0 to 8.3 also print "End-to-End Host Latency";
- from 8.5: several percentiles.

``Throughput`` counts batch times queries with an implicit batch; 7.x prints 0 for explicit batches
(NVIDIA/TensorRT#1162). Warnings and errors go to standard error, so a log needs both streams.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edgedeploy.errors import MeasurementError, Unstable
from edgedeploy.targets.tensorrt.version import TrtVersion, version_in

Cause = Literal[
    "not_trtexec", "several_runs", "unknown_option", "model_refused", "foreign_plan", "failed", "false_pass",
    "incomplete", "torn", "no_summary", "zero_throughput", "inconsistent", "unstable",
]  # fmt: skip

MAX_COV_PERCENT: Final = 2.5
"""Largest allowed coefficient of variation of the GPU time."""

_REMEDIES: Final[Mapping[str, str]] = {
    "not_trtexec": "Give the whole standard output and error of one trtexec run",
    "several_runs": "Keep one log a run",
    "unknown_option": "The flags are those of another TensorRT: probe the board again",
    "model_refused": "Lint the file for this release",
    "foreign_plan": "Engines are bound to GPU, TensorRT and JetPack: build it on this board",
    "failed": "The error above is TensorRT's own",
    "false_pass": "Do not trust its PASSED: the engine is broken",
    "incomplete": "The log ends before the run did: run it again",
    "torn": "Two processes wrote into one log: run it again",
    "no_summary": "Run it with inference, and profile in a run of its own",
    "zero_throughput": "TensorRT 7 counts no explicit batch: compute from --exportTimes",
    "inconsistent": "Its numbers contradict each other: run it again",
    "unstable": "Lock the clocks (jetson_clocks), let the board cool, end other work",
}


class LogRefused(MeasurementError):
    """A log that is no evidence. ``log`` is the raw text, ``cause`` says what is wrong with it."""

    def __init__(self, cause: Cause, found: str, log: str) -> None:
        super().__init__("a trtexec log that can be defended", f"{cause}: {found}", _REMEDIES[cause])
        self.cause: Cause = cause
        self.log = log


class UnstableLog(LogRefused, Unstable):
    """trtexec itself reports unstable GPU times."""


@dataclass(frozen=True)
class Spread:
    """One quantity of a summary, in the unit that trtexec prints (ms). ``mean`` is None where 7.x leaves it out."""

    min_ms: float
    max_ms: float
    median_ms: float
    mean_ms: float | None = None
    percentiles_ms: Mapping[int, float] = field(default_factory=dict)

    def ordered(self) -> bool:
        inner = [self.median_ms, *([] if self.mean_ms is None else [self.mean_ms]), *self.percentiles_ms.values()]
        rising = [self.percentiles_ms[share] for share in sorted(self.percentiles_ms)]
        finite = all(math.isfinite(value) for value in (self.min_ms, self.max_ms, *inner))
        return finite and all(self.min_ms <= value <= self.max_ms for value in inner) and rising == sorted(rising)


@dataclass(frozen=True)
class Run:
    """The facts of one run. ``spreads`` maps ``latency``, ``end_to_end``, ``enqueue``, ``h2d``, ``gpu_compute`` and ``d2h``
    to their numbers; ``items_per_s`` is what trtexec calls throughput (batch times queries); ``device`` maps the names of
    its device block (``Selected Device``, ``Compute Capability`` ...) to their text."""

    text: str
    version: TrtVersion | None
    passed: bool | None
    command: str
    spreads: Mapping[str, Spread]
    items_per_s: float | None
    batch: int
    queries: int | None
    walltime_s: float | None
    cov_percent: float | None
    device: Mapping[str, str]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    torn: tuple[str, ...]

    @property
    def queries_per_s(self) -> float | None:
        return None if self.items_per_s is None else self.items_per_s / self.batch

    @property
    def compute_capability(self) -> str | None:
        return self.device.get("Compute Capability")


_STAMP = r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\]"
_PREFIX = re.compile(rf"^(?:{_STAMP} )*(?:\[([IWEFV])\] )?(?:\[TRT\] )?")
_TORN = re.compile(rf"^(?:{_STAMP} ?)*[^\[\s].*{_STAMP}|^(?:{_STAMP} )*\[[IWEFV]\].*{_STAMP}")
_VERDICT = re.compile(r"^&&&& (RUNNING|PASSED|FAILED) TensorRT\.\w+(.*)$")
_NUMBER = r"([-+]?(?:\d{1,30}(?:\.\d{0,30})?(?:e[-+]?\d{1,3})?|nan|inf))"
_SUMMARY = re.compile(
    r"^(Latency|End-to-End Host Latency|Enqueue Time|H2D Latency|GPU Compute Time|D2H Latency): (min = .*)$"
)
_FIELD = re.compile(rf"(min|max|mean|median|percentile\((\d{{1,3}})%\)) = {_NUMBER} ms")
_OLD_FIELD = re.compile(rf"^(min|max|mean|median|percentile): {_NUMBER} ms(?: at (\d{{1,3}})%)?")
_OLD_BLOCKS: Final = {"Host Latency": "latency", "Enqueue Time": "enqueue", "GPU Compute": "gpu_compute"}
_NAMES: Final = {
    "Latency": "latency",
    "End-to-End Host Latency": "end_to_end",
    "Enqueue Time": "enqueue",
    "H2D Latency": "h2d",
    "GPU Compute Time": "gpu_compute",
    "D2H Latency": "d2h",
}
_THROUGHPUT = re.compile(rf"^[Tt]hroughput: {_NUMBER} qps$")
_QUERIES = re.compile(r"^Timing trace has (\d{1,12}) queries over")
_WALLTIME = re.compile(rf"^(?:Total Host Walltime|walltime): {_NUMBER} s$")
_COV = re.compile(rf"coefficient of variance = {_NUMBER}%")
_BATCH = re.compile(r"--batch=([1-9]\d{0,8})\b")
_DEVICE_KEYS: Final = ("Selected Device", "Compute Capability", "SMs", "Device Global Memory", "TensorRT version")

_TELLING: Final[Mapping[Cause, re.Pattern[str]]] = {
    "model_refused": re.compile(
        r"Assertion failed|Invalid Node|invalid weights|UNSUPPORTED_NODE|No importer registered"
    ),
    "foreign_plan": re.compile(
        r"deserializ|magicTag|incompatible (?:serialization|plan)|generated from a", re.IGNORECASE
    ),
}
"""Patterns of error lines by cause. ``Error Code 1: Serialization`` lines name an assertion too, in other words."""

_ANOTHER_DEVICE: Final = "engine plan file across different models of devices"
"""TensorRT only warns about a plan of a similar GPU, and loads it."""


def read_runs(text: str) -> tuple[Run, ...]:
    """Every run of a log, in order; none when nothing in it is trtexec's."""
    return tuple(_read(part) for part in _split(text) if _known(part))


def accept(text: str, *, timed: bool = True) -> Run:
    """The only run of a log, if it passes all checks. Raises :class:`LogRefused` with the raw log.

    With ``timed``, the run needs a consistent and stable performance summary. Without it, a passed run without errors
    is enough (a build, a profile, outputs).
    """
    runs = read_runs(text)
    if not runs:
        raise LogRefused("not_trtexec", "no line of it is trtexec's", text)
    if len(runs) > 1:
        raise LogRefused("several_runs", f"{len(runs)} runs in one log", text)
    run = runs[0]
    problem = next(_broken(run), None) or (next(_undefendable(run), None) if timed else None)
    if problem is not None:
        raise (UnstableLog if problem[0] == "unstable" else LogRefused)(*problem, text)
    return run


def _broken(run: Run) -> Iterator[tuple[Cause, str]]:
    """Reasons why the run failed or is incomplete, the most specific first."""
    unknown = [line.partition(":")[2].strip() for line in run.errors if line.startswith("Unknown option:")]
    if unknown:
        yield "unknown_option", ", ".join(unknown)
    if run.errors and run.passed:
        yield "false_pass", f"it prints PASSED after {run.errors[0]!r}"
    for cause, pattern in _TELLING.items():
        yield from ((cause, line) for line in run.errors if pattern.search(line))
    if run.passed is False or run.errors:
        yield "failed", run.errors[0] if run.errors else "FAILED without a reason"
    yield from (("foreign_plan", line) for line in run.warnings if _ANOTHER_DEVICE in line)
    if run.passed is None:
        yield "incomplete", "it has no PASSED line at its end"
    if run.torn:
        yield "torn", repr(run.torn[0][:160])


def _undefendable(run: Run) -> Iterator[tuple[Cause, str]]:
    """Reasons why the times of a passed run are no measurement."""
    gpu = run.spreads.get("gpu_compute")
    if "Skipped inference phase" in run.text or not run.spreads:
        yield "no_summary", "it holds no performance summary"
    if run.items_per_s == 0:
        yield "zero_throughput", "throughput: 0 qps"
    if gpu is None or "latency" not in run.spreads or run.queries_per_s is None:
        yield "no_summary", f"its summary has only {', '.join(run.spreads)}"
        return
    yield from (("inconsistent", f"{name}: {spread}") for name, spread in run.spreads.items() if not spread.ordered())
    busy = run.queries_per_s * gpu.median_ms / 1e3
    if not 0 < busy <= 1.2:  # one stream: the GPU is busy at most all of the time; the rest is rounding and the median
        yield "inconsistent", f"{run.items_per_s:g} qps of {gpu.median_ms:g} ms at batch {run.batch}"
    if run.cov_percent is not None and not run.cov_percent <= MAX_COV_PERCENT:
        yield "unstable", f"GPU time varies by {run.cov_percent:g} %, allowed are {MAX_COV_PERCENT:g} %"


def _split(text: str) -> Iterator[str]:
    """The log split by run. A run begins with a RUNNING line, or after a verdict if another verdict follows."""
    lines = text.splitlines()
    verdicts = [(place, match.group(1)) for place, line in enumerate(lines) if (match := _VERDICT.match(line))]
    starts = [place for place, kind in verdicts if kind == "RUNNING"]
    ends = [place for place, kind in verdicts if kind != "RUNNING"]
    if len(starts) <= 1 and len(ends) <= 1:
        yield text
        return
    cuts = starts[1:] if len(starts) > 1 else [end + 1 for end in ends[:-1]]
    for begin, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        yield "\n".join(lines[begin:end])


def _known(text: str) -> bool:
    return any(_VERDICT.match(line) for line in text.splitlines()) or bool(
        re.search(rf"^(?:{_STAMP} )?\[[IWEFV]\] ", text, re.MULTILINE)
    )


def _read(text: str) -> Run:
    levels: dict[str, list[str]] = {"E": [], "W": [], "F": []}
    spreads: dict[str, Spread] = {}
    device: dict[str, str] = {}
    old: dict[str, dict[str, float]] = {}
    block: str | None = None
    torn = []
    level = ""
    for line in text.splitlines():
        if _TORN.match(line):
            torn.append(line)
        match = _PREFIX.match(line)
        body = line[match.end() :] if match else line
        level = (match.group(1) if match else None) or (level if match and match.end() == 0 else "")
        if level in levels and body and not _VERDICT.match(line):
            levels[level].append(body)
        if level == "V":
            continue  # its explanations repeat every label
        if summary := _SUMMARY.match(body):
            spreads[_NAMES[summary.group(1)]] = _spread(summary.group(2))
        elif body.strip() in _OLD_BLOCKS:
            block = _OLD_BLOCKS[body.strip()]
        elif (field_ := _OLD_FIELD.match(body)) and block:
            name = f"p{field_.group(3)}" if field_.group(1) == "percentile" else field_.group(1)
            old.setdefault(block, {})[name] = float(field_.group(2))
        name, _, value = body.partition(":")
        if name in _DEVICE_KEYS and value.strip():
            device[name] = value.strip()
    spreads.update(
        {name: _old_spread(values) for name, values in old.items() if {"min", "max", "median"} <= set(values)}
    )
    plain = "\n".join(_PREFIX.sub("", line) for line in text.splitlines() if "[V]" not in line)
    ended = [match for line in text.splitlines() if (match := _VERDICT.match(line))]
    verdicts = [match.group(1) for match in ended if match.group(1) != "RUNNING"]
    command = ended[-1].group(2).partition("# ")[2] if ended else ""
    batch = _BATCH.search(command)
    queries = _find(_QUERIES, plain)
    return Run(
        text=text,
        version=version_in(text),
        passed=verdicts[-1] == "PASSED" if verdicts else None,
        command=command,
        spreads=spreads,
        items_per_s=_find(_THROUGHPUT, plain),
        batch=int(batch.group(1)) if batch else 1,
        queries=None if queries is None else int(queries) // (int(batch.group(1)) if batch else 1),
        walltime_s=_find(_WALLTIME, plain),
        cov_percent=_find(_COV, plain),
        device=device,
        errors=tuple(levels["E"] + levels["F"]),
        warnings=tuple(levels["W"]),
        torn=tuple(torn),
    )


def _find(pattern: re.Pattern[str], text: str) -> float | None:
    match = re.search(pattern.pattern, text, re.MULTILINE)
    return float(match.group(1)) if match else None


def _spread(text: str) -> Spread:
    values: dict[str, float] = {}
    shares: dict[int, float] = {}
    for name, share, number in _FIELD.findall(text):
        if share:
            shares[int(share)] = float(number)
        else:
            values[name] = float(number)
    nan = math.nan
    return Spread(
        values.get("min", nan), values.get("max", nan), values.get("median", nan), values.get("mean", nan), shares
    )


def _old_spread(values: Mapping[str, float]) -> Spread:
    shares = {int(name[1:]): value for name, value in values.items() if name[0] == "p"}
    return Spread(values["min"], values["max"], values["median"], values.get("mean"), shares)

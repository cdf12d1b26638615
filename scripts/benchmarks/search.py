"""How far searches get in few evaluations: hypervolume over the true one, on tables whose every variant is known.

- Tables: a made-up space of co-design, and NAS-Bench-201 with latencies of real devices where `--tables` names the folder of
  `nb201_help.npz`. Without it those rows are left out, and the output says so.
- Searches: edgedeploy's own ("co-design") beside Optuna's samplers with their own defaults. Distinct variants count: what a
  sampler proposes twice is wasted, and told with the value of before.
- "known": the latencies are known before anything is tried, as after a run of all structures with untrained weights; only
  edgedeploy's own search can use that.
- "equals equally fast": a table of a device whose runtime left out what leads nowhere, where networks that compute the same
  take the median of what was measured of them. It tells how much of a result is luck, and has no bar.
- A second board: ten trials among the models that a search for another device has trained, with more_boards and without;
  and how often intervals of predicted times hold the measured one.

With tables, --samplers co-design --evaluations 50 took 13 minutes beside other work; --quick takes less than one. --folder
keeps each search, and a later call goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import optuna
import scipy.linalg  # noqa: F401 - its BLAS is held to one thread too, if it is loaded by then
from threadpoolctl import threadpool_limits  # scikit-learn brings it

from benchmarks import ROOT, parser_of
from benchmarks.shared import search_tables, searchers
from benchmarks.shared.search_tables import NAS_FILE, Table, co_design, devices_of, nas_bench_201
from benchmarks.shared.searchers import OWN, SAMPLERS, Run
from benchmarks.shared.second_board import Second, coverage, second_board
from edgedeploy.files import append_line
from edgedeploy.search.conformal import NOMINAL
from edgedeploy.search.warmstart import FIRST_TRIALS

EXTRAS: Final = ("study",)

COUNTS: Final = (25, 50, 100)
DEVICES: Final = ("gold_6226", "raspi4", "pixel3", "samsung_a50", "silver_4114")
DEVICES_ASKED: Final = 3
"""On so many devices the bars have to hold; how each of them fares is told beside that."""
LEVEL: Final = ("raspi4", "pixel3")
"""Devices whose runtimes left out what leads nowhere: searched once more where networks that compute the same are equally
fast, which tells how much of a result hangs on which of them happened to be measured fast."""
COMPARED_ON: Final = 1
"""The first so many devices, and the made-up space, are searched by every sampler; the others by our own alone."""
SLOW: Final = {"gp": 50}
"""Samplers that take half a second a proposal get no further than this."""

REPEATS_OVER: Final = 300
SPEED_BARS_MS: Final = {150: 100.0, 1000: 300.0}
SOURCE_TRIALS: Final = 50
SOURCE_SEEDS: Final = 5
SECOND_BAR: Final = 0.945
"""Reached in the trial that it comes from with .968 at most: .976 of what the trained models can give."""
PROBES: Final = (20, 30, 50)
DRAWS: Final = 100
COVERAGE_BAR: Final = (0.88, 0.92)
NOT_PROPOSING: Final = ("conformal", "history", "loop", "transfer", "warmstart")
"""Modules of the search that the searches of this benchmark do not pass through."""
LINES: Final = "searches.jsonl"


@dataclass(frozen=True)
class Bar:
    """What searches have to reach after ``count`` evaluations: in the mean, and each of them."""

    count: int
    mean: float
    least: float = 0.0

    def __str__(self) -> str:
        return f"{self.mean:g}{f', least {self.least:g}' if self.least else ''}"

    def holds(self, shares: Sequence[float]) -> bool:
        return statistics.fmean(shares) >= self.mean and min(shares) >= self.least


KNOWN_BAR: Final = Bar(25, 0.95)
UNKNOWN_BAR: Final = Bar(50, 0.95, least=0.92)
MADE_UP_BARS: Final = (Bar(25, 0.87), Bar(50, 0.95))


@dataclass(frozen=True)
class Problem:
    """``tables``: one for all searches; the made-up space has another one for each. ``more_boards``: searched with the
    option of that name, because other devices follow."""

    tables: Sequence[Table]
    known: bool
    more_boards: bool = False

    @property
    def name(self) -> str:
        told = ", more_boards" if self.more_boards else ""
        return f"{self.tables[0].name}, latency {'known' if self.known else 'unknown'}{told}"

    def table(self, seed: int) -> Table:
        return self.tables[seed % len(self.tables)]


@dataclass(frozen=True)
class Row:
    """A line of the result: what was found, and the bar it is held against (empty: none). ``decides``: whether ``--check``
    fails for it; one device of several does not."""

    what: str
    found: str
    bar: str = ""
    holds: bool = True
    decides: bool = True


class Kept:
    """The searches of a folder, one line each. Those of other code are others."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LINES
        self._runs: dict[str, dict[str, Any]] = {}
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            try:
                found = json.loads(line)
                self._runs[found["key"]] = found["run"]
            except (ValueError, KeyError, TypeError):
                continue  # the end of a call that was cut off

    def run(self, problem: Problem, sampler: str, seed: int, evaluations: int) -> Run:
        key = " | ".join((problem.name, sampler, str(seed), _code_of(sampler)))
        kept = self._runs.get(key)
        if kept is not None and (len(kept["shares"]) >= evaluations or kept["stopped"]):
            return Run(**kept)
        run = searchers.search(problem.table(seed), sampler, seed, evaluations, problem.known, problem.more_boards)
        self._runs[key] = run.as_json()
        append_line(self._path, json.dumps({"key": key, "run": self._runs[key]}).encode())
        return run


@cache
def _code_of(sampler: str) -> str:
    """Changes when the table or the sampler does."""
    files = [Path(search_tables.__file__), Path(searchers.__file__)]
    own = sorted(path for path in (ROOT / "edgedeploy" / "search").glob("*.py") if path.stem not in NOT_PROPOSING)
    files += own if sampler == OWN else []
    sums = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    return f"{sums} optuna {optuna.__version__}"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("search", __doc__)
    parser.add_argument("--tables", type=Path, help=f"the folder of {NAS_FILE}")
    parser.add_argument("--devices", nargs="+", default=list(DEVICES), help=f"of that file ({' '.join(DEVICES)})")
    parser.add_argument("--samplers", nargs="+", default=[OWN, *SAMPLERS], choices=[OWN, *SAMPLERS])
    parser.add_argument("--seeds", type=int, default=10, help="how many searches of each kind (10)")
    parser.add_argument("--evaluations", type=int, default=COUNTS[-1], help=f"of each search ({COUNTS[-1]})")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="what is run (all)")
    parser.add_argument("--folder", type=Path, help="keep the searches there, and go on with those that it holds")
    parser.add_argument(
        "--quick", action="store_true", help="own search alone, 3 seeds, 50 evaluations, no speed at 1000"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    given = parser.parse_args(argv)
    if given.quick:
        given.samplers, given.seeds, given.evaluations = [OWN], min(given.seeds, 3), min(given.evaluations, 50)
    try:
        tables = _tables(given.tables, given.devices, given.seeds)
    except (OSError, ValueError, KeyError) as exc:
        parser.error(f"--tables {given.tables}: {exc!r}")
    with threadpool_limits(1):  # processor time of two threads that wait for each other says nothing
        return _run(given, tables)


def _run(given: argparse.Namespace, tables: Sequence[Sequence[Table]]) -> int:
    rows: list[Row] = []
    place = nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory(prefix="edgedeploy-search-")
    with place as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        kept = Kept(Path(folder))
        for part in given.parts:
            for row in PARTS[part](tables, kept, given):
                rows.append(row)
                sys.stderr.write(f"{row.what}: {row.found}{'' if row.holds else '   MISSED'}\n")
    if given.tables is None:
        rows.append(Row(f"NAS-Bench-201 with real devices (no --tables with {NAS_FILE})", "left out"))
    sys.stdout.write(_table(rows))
    return int(given.check and not all(row.holds for row in rows if row.decides))


def _tables(folder: Path | None, devices: Sequence[str], seeds: int) -> list[Sequence[Table]]:
    """The made-up spaces first; then each device, then the first two together."""
    found = [[co_design(seed) for seed in range(seeds)]]
    if folder is not None:
        found += [[nas_bench_201(folder, [device])] for device in devices]
        found += [[nas_bench_201(folder, devices[:2])]] if len(devices) > 1 else []
    return found


def _own_rows(tables: Sequence[Sequence[Table]], kept: Kept, given: Any) -> Iterator[Row]:
    """Our own search on every table, held against the bars: on the made-up space, on as many single devices as were asked
    for, on the first two devices together, and without a bar where luck is taken out of the times."""
    if OWN not in given.samplers:
        return
    count = len(given.devices)
    made_up, singles, pairs = tables[0], tables[1 : 1 + count], tables[1 + count :]
    yield from _searched(Problem(made_up, False), MADE_UP_BARS, kept, given)
    for known, bar in ((True, KNOWN_BAR), (False, UNKNOWN_BAR)):
        found = [
            row for table in singles for row in _searched(Problem(table, known), (bar,), kept, given, decides=False)
        ]
        yield from found
        told = [row for row in found if row.bar and not row.decides]
        if told:
            holding, asked = sum(row.holds for row in told), min(DEVICES_ASKED, count)
            what = f"devices with {bar} @{bar.count}, latency {'known' if known else 'unknown'}"
            yield Row(what, f"{holding} of {len(told)}", f"{asked}", holding >= asked)
        for table in pairs:
            yield from _searched(Problem(table, known), (bar,), kept, given)
    for device in LEVEL if singles else ():
        yield from _searched(Problem([nas_bench_201(given.tables, [device], level=True)], False), (), kept, given)


def _searched(problem: Problem, bars: Sequence[Bar], kept: Kept, given: Any, *, decides: bool = True) -> Iterator[Row]:
    runs = [kept.run(problem, OWN, seed, given.evaluations) for seed in range(given.seeds)]
    for count in (number for number in COUNTS if number <= given.evaluations):
        shares = [run.at(count) for run in runs]
        row = Row(f"{problem.name}: @{count}", f"{_spread(shares)}, least {min(shares):.3f}")
        bar = next((bar for bar in bars if bar.count == count), None)
        yield row if bar is None else replace(row, bar=str(bar), holds=bar.holds(shares), decides=decides)
    wasted = sum(run.wasted for run in runs)
    yield Row(f"{problem.name}: wasted proposals", str(wasted), "0", wasted == 0)


def _compared_rows(tables: Sequence[Sequence[Table]], kept: Kept, given: Any) -> Iterator[Row]:
    """Every sampler side by side, latency unknown."""
    for table in tables[: 1 + COMPARED_ON]:
        for sampler in given.samplers:
            problem, most = Problem(table, False), min(given.evaluations, SLOW.get(sampler, given.evaluations))
            runs = [kept.run(problem, sampler, seed, most) for seed in range(given.seeds)]
            cells = [f"@{count} {_spread([run.at(count) for run in runs])}" for count in COUNTS if count <= most]
            wasted = statistics.fmean(100 * run.wasted / len(run.shares) for run in runs)
            ms = statistics.median(statistics.median(run.ms[-10:]) for run in runs)
            told = f"{wasted:.0f} wasted per 100; {ms:.0f} ms a proposal at {most}"
            stopped = sum(run.stopped for run in runs)
            told += f"; {stopped} stopped, repeating themselves" if stopped else ""
            yield Row(f"{sampler} on {table[0].name}", f"{'; '.join(cells)}; {told}")


def _speed_rows(tables: Sequence[Sequence[Table]], kept: Kept, given: Any) -> Iterator[Row]:
    """Proposals after many evaluations, on the largest table there is."""
    table = tables[min(1, len(tables) - 1)][0]
    sizes = [size for size in SPEED_BARS_MS if not given.quick or size <= min(SPEED_BARS_MS)]
    for size in sizes:
        ms = searchers.proposal_ms(table, size)
        what = f"{table.name}: ms a proposal at {size}"
        found = f"{statistics.median(ms):.0f} (from {min(ms):.0f} to {max(ms):.0f})"
        yield Row(what, found, f"{SPEED_BARS_MS[size]:g}", statistics.median(ms) <= SPEED_BARS_MS[size])
    if not given.quick:
        run = kept.run(Problem(tables[0], False), OWN, 0, REPEATS_OVER)
        yield Row(f"repeats in {REPEATS_OVER} proposals", str(run.wasted), "0", run.wasted == 0)


def _second_rows(tables: Sequence[Sequence[Table]], kept: Kept, given: Any) -> Iterator[Row]:
    """Ten trials on each other device, from searches of 50 trials for one of the given devices which know that others
    follow (``more_boards``); and, without a bar, from searches that do not. What all trained models would give stands beside
    what was reached: no choice among them is better."""
    if given.tables is None:
        return
    singles = {name: nas_bench_201(given.tables, [name]) for name in devices_of(given.tables)}
    seeds = range(min(given.seeds, SOURCE_SEEDS))
    what = f"second board after {FIRST_TRIALS} trials without training"
    for more_boards in (False, True):
        told = ", first searches with more_boards" if more_boards else ", first searches without more_boards"
        found: dict[str, list[Second]] = {}
        for first in given.devices:
            problem = Problem([singles[first]], False, more_boards)
            runs = [kept.run(problem, OWN, seed, SOURCE_TRIALS) for seed in seeds]
            for second in (name for name in singles if name != first):
                here = [second_board(singles[first], singles[second], run.digests[:SOURCE_TRIALS]) for run in runs]
                found.setdefault(first, []).extend(here)
                if more_boards:
                    yield Row(f"second board: {first}, then {second}", _reached_of(here))
            yield Row(f"{problem.name}: @{SOURCE_TRIALS}, on itself", _spread([run.at(SOURCE_TRIALS) for run in runs]))
            yield Row(f"{what}, first {first}{told}", _share_of(found[first]))
        every = [item for here in found.values() for item in here]
        mean = statistics.fmean(item.reached for item in every)
        bar = (f"{SECOND_BAR:g}", mean >= SECOND_BAR) if more_boards else ()
        yield Row(f"{what}, all pairs{told}", _share_of(every), *bar)


def _share_of(found: Sequence[Second]) -> str:
    share = statistics.fmean(item.reached for item in found) / statistics.fmean(item.at_most for item in found)
    return f"{_reached_of(found)}, which all trained models would give: {share:.3f} of that"


def _reached_of(found: Sequence[Second]) -> str:
    at_most = statistics.fmean(item.at_most for item in found)
    return f"{_spread([item.reached for item in found])} of at most {at_most:.3f}"


def _interval_rows(tables: Sequence[Sequence[Table]], kept: Kept, given: Any) -> Iterator[Row]:
    """Intervals of times that are predicted from random probes, for each pair of the given devices."""
    if given.tables is None or len(given.devices) < 2:
        return
    singles = [nas_bench_201(given.tables, [name]) for name in given.devices]
    pairs = list(itertools.permutations(singles, 2))
    for probes in PROBES:
        found = [coverage(*pair, probes, DRAWS) for pair in pairs]
        held = statistics.fmean(item.held for item in found)
        factor = statistics.median(item.factor for item in found)
        error = statistics.median(item.error for item in found)
        told = f"{held:.1%} held; half a width is a factor of {factor:.2f}, the median error {error:.0%}"
        low, high = COVERAGE_BAR
        what = f"nominal {NOMINAL:.0%} intervals, {probes} probes, {len(pairs)} pairs of devices, {DRAWS} draws each"
        yield Row(what, told, f"{low:.0%} to {high:.0%}", low <= held <= high)


PARTS: Final[dict[str, Callable[[Sequence[Sequence[Table]], Kept, Any], Iterator[Row]]]] = {
    "own": _own_rows,
    "compared": _compared_rows,
    "speed": _speed_rows,
    "second": _second_rows,
    "intervals": _interval_rows,
}


def _spread(values: Sequence[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"| {row.what} | {row.found} | {row.bar} | {('holds' if row.holds else 'MISSED') if row.bar else ''} |"
        for row in rows
    ]
    return "\n".join(["| hypervolume over the true one | found | bar | |", "|---|---|---|---|", *lines, ""])

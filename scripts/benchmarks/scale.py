"""What a study of many variants costs beside its measurements: bookkeeping, proposals, front, report, memory.

The measurements are MADE UP: no board ever said any of this. They have the size and the parts of real ones. A folder is
filled with them, and a search goes on in it with a board that answers at once. Bookkeeping is what a trial costs beside
the sampler and the board: the steps in the database, the evidence, the best so far, the account and the events.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from benchmarks import parser_of
from benchmarks.shared.made_up_folder import SPACE, all_variants, made_up_measurement, new_folder
from edgedeploy.errors import Quarantined
from edgedeploy.lab.crew import Crew, Post
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Outcome, Scored, Search
from edgedeploy.search.proposals import Proposals
from edgedeploy.study.account import Account
from edgedeploy.study.best import Best
from edgedeploy.study.events import Event, EventLog
from edgedeploy.study.front import open_index, stored_spec
from edgedeploy.study.index import NAME as INDEX
from edgedeploy.study.known import Known
from edgedeploy.study.outputs import prune_outputs
from edgedeploy.study.store import Store

EXTRAS: Final = ("study",)

BOOKKEEPING_BAR_MS: Final = 50.0
PROPOSALS_BAR: Final = 1.2
FRONT_BAR_S: Final = 5.0
REPORT_BAR_S: Final = 15.0
REPORT_BAR_MB: Final = 8.0
MEMORY_BAR_MB: Final = 500.0
FEW: Final = 100
TIMED_TRIALS: Final = 10
FRESH_TRIALS: Final = 20


class Clock:
    """Wall time, or the processor time of this process."""

    def __init__(self) -> None:
        self.of: Callable[[], float] = time.perf_counter

    def __call__(self) -> float:
        return self.of()


clock: Final = Clock()


class Desk:
    """The bookkeeping of a run, as :class:`edgedeploy.study.run.StudyRun` does it, with a board that answers at once."""

    def __init__(self, store: Store, cases: int) -> None:
        started_s = clock()
        self.store, self.cases = store, cases
        self.known, self.account = Known(store, open_index(store)), Account(store)
        self.known.keep_index(open_index)
        self.best = Best(store.study(), stored_spec(store), self.known.measurements())
        self.log = EventLog(store.root)
        self.made_s = self.drawn_s = 0.0
        self.recover_s = clock() - started_s

    def lookup(self, variant: Variant) -> Outcome | None:
        found = self.known.measurement(variant.digest)
        return None if found is None else Scored((found.metrics["dice_mean"], found.metrics["latency_ratio"]), {})

    def evaluate(self, variant: Variant) -> Outcome:
        started_s = clock()
        measurement = made_up_measurement(variant, self.cases)
        self.made_s += clock() - started_s
        with self.account.phase("bookkeeping"):
            self.store.keep(measurement)
            found = self.known.measurement(variant.digest)
            assert found is not None
            self.best.add(found)
            prune_outputs(self.store, self.best.shown, self.best.taken)
            self.log(Event("trial", variant.label, 0, 0, best=self.best.text()))
        outcome = self.lookup(variant)
        assert outcome is not None
        return outcome

    def run(self, trials: int) -> list[tuple[float, float]]:
        """Seconds of bookkeeping and of the sampler of each new variant."""
        spent: list[tuple[float, float]] = []
        marks = [clock()]

        def evaluate(variant: Variant) -> Outcome:
            outcome = self.evaluate(variant)
            now_s = clock()
            spent.append((now_s - marks[-1] - self.drawn_s - self.made_s, self.drawn_s))
            marks.append(now_s)
            self.made_s = self.drawn_s = 0.0
            return outcome

        search = Search(
            storage=self.store.optimiser_path,
            space=SPACE,
            directions=("maximize", "minimize"),
            seed=0,
            lookup=self.lookup,
            clock=nullcontext,
            evidence=self.known.variants,
        )
        with Crew([Post("made up", evaluate, lambda cause: Quarantined("made up", cause))]) as crew:
            propose = Proposals.next

            def timed(proposals: Proposals, *arguments: Any) -> Any:
                begun_s = clock()
                try:
                    return propose(proposals, *arguments)
                finally:
                    self.drawn_s += clock() - begun_s

            Proposals.next = timed  # type: ignore[method-assign]
            try:
                search.run(crew, trials=trials, deadline_s=time.monotonic() + 3600)
            finally:
                Proposals.next = propose  # type: ignore[method-assign]
        if spent:
            self.recover_s += spent[0][0]  # the first trial's own part is small
        return spent[1:]

    def proposals(self) -> int:
        import optuna

        return len(optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{self.store.optimiser_path}").trials)


def bookkeeping(
    folder: Path, variants: Sequence[Variant], trials: int, cases: int
) -> tuple[list[float], list[float], float]:
    """Milliseconds of bookkeeping and seconds of the sampler of the last trials before ``trials``, and the seconds that it
    took to take the folder up. The folder is filled up to there first; one that was kept full grows a little."""
    store = new_folder(folder)
    held = {path.stem for path in (folder / "measurements").glob("*.json")}
    trials = max(trials, len(held) + TIMED_TRIALS)
    lacking = [variant for variant in variants if variant.digest not in held]
    for variant in lacking[: trials - TIMED_TRIALS - len(held)]:
        store.keep(made_up_measurement(variant, cases))
    Desk(store, cases).run(trials - TIMED_TRIALS)  # tells the database of them
    desk = Desk(store, cases)
    spent = desk.run(trials)
    return [1e3 * book for book, _ in spent], [sampler for _, sampler in spent], desk.recover_s


TELL_MEMORY: Final = """
import sys
from edgedeploy.__main__ import main
try:
    main()
finally:
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    sys.stderr.write("\\nkB " + line.split()[1])
"""
"""The kernel's own account of a child begins with what its parent held when it was forked."""


def command(*arguments: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in MB of a command of edgedeploy."""
    before, started_s = os.times(), time.perf_counter()
    argv = [sys.executable, "-c", TELL_MEMORY, *arguments]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wall_s, after = time.perf_counter() - started_s, os.times()
    if done.returncode:
        raise SystemExit(f"edgedeploy {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, cpu_s, int(done.stderr.rpartition("kB ")[2]) / 1e3


def own_memory_mb() -> float:
    """The most that this process has held: it is the searching one, with torch and Optuna."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} (from {min(values):.3g} to {max(values):.3g})"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("scale", __doc__)
    parser.add_argument("--variants", type=int, default=1000, help="how many the folder holds (1000)")
    parser.add_argument("--cases", type=int, default=40, help="how many cases each was scored on (40)")
    parser.add_argument("--folder", type=Path, help="keep the folders there (a temporary one)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    text = (
        "count processor time instead of wall time, on a machine that others use too; waits for the disk are not in it"
    )
    parser.add_argument("--processor", action="store_true", help=text)
    given = parser.parse_args(argv)
    if given.processor:
        clock.of = time.process_time
    variants = all_variants()
    if not FEW <= given.variants < len(variants) - TIMED_TRIALS:
        parser.error(f"--variants is at least {FEW} and less than {len(variants) - TIMED_TRIALS}")
    lines: list[tuple[str, str, str, bool]] = []

    def row(what: str, found: str, bar: str, holds: bool = True) -> None:
        lines.append((what, found, bar, holds))
        sys.stderr.write(f"{what}: {found}\n")

    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory(prefix="edgedeploy-scale-") as name:
        root = Path(name)
        fresh = Desk(new_folder(root / "fresh"), given.cases)
        fresh.run(FRESH_TRIALS)
        share = fresh.proposals() / FRESH_TRIALS
        row(f"proposals a variant, {FRESH_TRIALS} variants", f"{share:.2f}", f"{PROPOSALS_BAR}", share <= PROPOSALS_BAR)
        for trials in (FEW, given.variants):
            spent_ms, sampler_s, recover_s = bookkeeping(root / str(trials), variants, trials, given.cases)
            each_ms = statistics.median(spent_ms) + 1e3 * recover_s / trials
            row(f"bookkeeping a trial at {trials}, ms", spread(spent_ms), "")
            row(f"taking {trials} up again, s", f"{recover_s:.3g}", "")
            holds = each_ms <= BOOKKEEPING_BAR_MS
            row(f"both a trial at {trials}, ms", f"{each_ms:.3g}", f"{BOOKKEEPING_BAR_MS:g}", holds)
            row(f"sampler a trial at {trials}, s", spread(sampler_s), "")
        memory_mb = own_memory_mb()
        row("search: memory, MB", f"{memory_mb:.0f}", f"{MEMORY_BAR_MB:g}", memory_mb <= MEMORY_BAR_MB)
        folder = str(root / str(given.variants))
        without_index = root / "without-index"
        shutil.rmtree(without_index, ignore_errors=True)
        shutil.copytree(folder, without_index)
        (without_index / INDEX).unlink(missing_ok=True)
        wall_s, cpu_s, _ = command("front", str(without_index))
        row("front without its index, s", f"{wall_s:.3g} (processor {cpu_s:.3g})", "")
        for what, bar_s in (("front", FRONT_BAR_S), ("report", REPORT_BAR_S)):
            wall_s, cpu_s, memory_mb = command(what, folder)
            judged_s = cpu_s if given.processor else wall_s
            row(f"{what}, s", f"{wall_s:.3g} (processor {cpu_s:.3g})", f"{bar_s:g}", judged_s <= bar_s)
            row(f"{what}: memory, MB", f"{memory_mb:.0f}", f"{MEMORY_BAR_MB:g}", memory_mb <= MEMORY_BAR_MB)
        size_mb = (Path(folder) / "report.html").stat().st_size / 1e6
        row("report, MB", f"{size_mb:.2f}", f"{REPORT_BAR_MB:g}", size_mb <= REPORT_BAR_MB)
    sys.stdout.write(table(lines, f"{given.variants} made-up variants of {given.cases} cases"))
    return int(given.check and not all(holds for *_, holds in lines))


def table(lines: Sequence[tuple[str, str, str, bool]], title: str) -> str:
    rows = [
        f"| {what} | {found} | {bar} | {('holds' if holds else 'MISSED') if bar else ''} |"
        for what, found, bar, holds in lines
    ]
    return "\n".join([f"| {title} | found | limit | |", "|---|---|---|---|", *rows, ""])

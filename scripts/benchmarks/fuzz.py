"""Damaged answers of agents, folders of studies, study files, bundles, lines of tegrastats, words of trtexec, DICOM images
and ONNX networks: each is refused by a typed error or read.

A real run of the local agent on a tiny network is recorded once. Then each case damages one answer, one file of a study's
folder, one study file, one part of a signed bundle or one of the others, and gives it to the code that reads it in earnest.
A violation is an error that is none of edgedeploy's own, a case that does not end within its limit, more memory than the
limit, a signature file that was changed and is accepted, or a file that is written, changed or gone outside of the case's
own folder. A case is made from the seed, its number and the recorded run, which is kept when there was a violation: --case
repeats one, and shows it.

With --check exit 1 when there was a violation.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import parser_of

if TYPE_CHECKING:
    from benchmarks.shared.fuzz_kinds import Kind
    from benchmarks.shared.recorded_agent import Recording

EXTRAS: Final = ("study", "dev")

CASES: Final = 100_000
PROCESSES: Final = 2
CASE_LIMIT_S: Final = 10.0
"""A case takes milliseconds; on a host that is busy with other work some take seconds."""
MEMORY_BYTES: Final = 2 << 30
"""What a process may use beyond what it has when it begins: the longest input has 200 KB."""
LOOKS_AFTER: Final = 250
"""Cases between two looks at what lies outside."""
MOST_SHOWN: Final = 20
MEMORY: Final = Path("/dev", "shm")


class Endless(BaseException):
    """A case that is over its limit. No handler of the readers catches it."""


@dataclass
class Tally:
    """``violations`` are (case, what it damaged, what happened)."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[tuple[int, str, str]] = field(default_factory=list)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def one(kinds: dict[str, Kind], index: int, seed: int) -> tuple[str, str, str]:
    """Run a case: its kind, how it ended (``refused``, ``accepted``, ``violation``), and what is wrong."""
    from benchmarks.shared.fuzz_kinds import kind_of, refused

    name = kind_of(index)
    what, data = kinds[name].damage(random.Random(f"{seed}:{index}"))
    try:
        with limited(CASE_LIMIT_S), refused() as told:
            kinds[name].read(what, data)
        return name, "refused" if told else "accepted", what
    except Endless:
        return name, "violation", f"{what}: no end within {CASE_LIMIT_S:g} s"
    except BaseException as exc:  # whatever it is, it is none of edgedeploy's errors
        where = traceback.extract_tb(exc.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return name, "violation", f"{what}: {type(exc).__name__}: {str(exc)[:200]!r} at {place}"


def outside(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies around the cases' own folder: size and change time by path."""
    found = {}
    for path in folder.rglob("*"):
        if "own" not in path.relative_to(folder).parts and not path.is_dir():
            stat = path.lstat()
            found[str(path)] = stat.st_size, stat.st_mtime_ns
    return found


@contextmanager
def place(folder: Path) -> Iterator[Path]:
    """A home, a working folder and a folder for temporary files, around the one where cases may write (``own``)."""
    own = folder / "a" / "b" / "own"
    for name in ("home", "a/b/own/state", "a/b/work", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "a" / "outside").write_text("as it was")
    os.environ |= {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "EDGEDEPLOY_STATE": str(own / "state"),
    }
    tempfile.tempdir = None
    before = Path.cwd()
    os.chdir(folder / "a" / "b" / "work")
    try:
        yield own
    finally:
        os.chdir(before)


def made(recording: Recording | None, own: Path, names: Sequence[str]) -> dict[str, Kind]:
    from benchmarks.shared.fuzz_kinds import KINDS

    return {name: KINDS[name][0](recording, _new(own / name)) for name in names}


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def work(
    recording: Recording | None, folder: Path, number: int, given: argparse.Namespace, answers: Any, progress: Any
) -> None:
    """The cases of one process: every so many-th."""
    folder.mkdir()
    warnings.simplefilter("ignore")  # sums of absurd numbers overflow, as they should
    tally = Tally()
    try:
        with place(folder) as own:
            _work(
                made(recording, own, given.kinds),
                range(number, given.cases, PROCESSES),
                given,
                tally,
                partial(outside, folder),
                progress,
            )
    finally:
        answers.put((dict(tally.counts), tally.violations))


def _work(
    kinds: dict[str, Kind],
    cases: range,
    given: argparse.Namespace,
    tally: Tally,
    look: Callable[[], dict[str, tuple[int, int]]],
    progress: Any,
) -> None:
    from benchmarks.shared.fuzz_kinds import kind_of

    _limit_memory()
    was, until_s = look(), time.monotonic() + (given.seconds or 1e9)
    for count, index in enumerate(cases, start=1):
        if time.monotonic() > until_s:
            break
        if kind_of(index) not in kinds:
            continue
        progress[cases.start] = index
        name, end, text = one(kinds, index, given.seed)
        tally.counts[name, end] += 1
        if end == "violation":
            tally.violations.append((index, name, text))
        if (count % LOOKS_AFTER == 0 or index + PROCESSES >= cases.stop) and (now := look()) != was:
            changed = sorted({*now.items()} ^ {*was.items()})[:3]
            tally.violations.append((index, name, f"outside, in the last {LOOKS_AFTER * PROCESSES} cases: {changed}"))
            was = now
    if look() != was:
        tally.violations.append((progress[cases.start], "?", "outside, in the last cases"))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def recorded(given: argparse.Namespace, folder: Path) -> Recording | None:
    """The run that another call kept, or a new one; None where no kind is damaged that needs one."""
    from benchmarks.shared.fuzz_kinds import ALONE
    from benchmarks.shared.recorded_agent import Recording, record

    if set(given.kinds) <= set(ALONE):
        return None
    return Recording.load(given.recording, _new(folder)) if given.recording else record(_new(folder))


def run(given: argparse.Namespace, recording: Recording | None, folder: Path) -> Tally:
    """All cases, in :data:`PROCESSES` processes."""
    context = multiprocessing.get_context("fork")
    answers, progress = context.Queue(), context.Array("l", PROCESSES)
    workers = [
        context.Process(target=work, args=(recording, folder / str(number), number, given, answers, progress))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    tally, seen = Tally(), [(-1, time.monotonic())] * PROCESSES
    while any(worker.is_alive() for worker in workers) or not answers.empty():
        while not answers.empty():
            counts, violations = answers.get()
            tally.counts.update(counts)
            tally.violations += violations
        for number, worker in enumerate(workers):
            _watch(worker, number, progress, seen, tally)
        time.sleep(0.1)
    for number, worker in enumerate(workers):
        if worker.exitcode:
            tally.violations.append((progress[number], "?", f"its process ended with status {worker.exitcode}"))
    return tally


def _watch(worker: Any, number: int, progress: Any, seen: list[tuple[int, float]], tally: Tally) -> None:
    """A case that does not even hear its alarm hangs in a library: its process is ended."""
    if not worker.is_alive() or seen[number][0] != progress[number]:
        seen[number] = progress[number], time.monotonic()
    elif time.monotonic() - seen[number][1] > 6 * CASE_LIMIT_S:
        tally.violations.append((progress[number], "?", "it hangs and hears no alarm"))
        worker.kill()
        worker.join()


def show(given: argparse.Namespace, folder: Path) -> int:
    """Repeat one case, with the damaged input and the error."""
    from benchmarks.shared.fuzz_kinds import kind_of

    name = kind_of(given.case)
    given.kinds = [name]
    recording = recorded(given, folder / "recording")
    with place(_new(folder / "0")) as own:
        kinds = made(recording, own, given.kinds)
        what, data = kinds[name].damage(random.Random(f"{given.seed}:{given.case}"))
        sys.stdout.write(f"{name}, {what}, {len(data)} bytes: {data[:3000]!r}\n")
        try:
            with limited(CASE_LIMIT_S):
                kinds[name].read(what, data)
            sys.stdout.write("accepted\n")
        except BaseException:
            traceback.print_exc()
    return 0


def _kept(recording: Recording | None, seed: int) -> str:
    """Keep the recorded run, and the option that takes it again."""
    if recording is None:
        return ""
    kept = Path(tempfile.gettempdir()) / f"edgedeploy-fuzz-{seed}.json"
    recording.save(kept)
    return f" --recording {kept}"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("fuzz", __doc__)
    parser.add_argument("--cases", type=int, default=CASES, help=f"how many cases ({CASES})")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--seed", type=int, default=1, help="other cases (1)")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="cases of these kinds alone")
    parser.add_argument("--case", type=int, help="repeat one case and show it")
    parser.add_argument("--recording", type=Path, help="the run that another call kept, instead of a new one")
    parser.add_argument("--check", action="store_true", help="exit 1 when there is a violation")
    given = parser.parse_args(argv)
    from benchmarks.shared.fuzz_kinds import KINDS

    given.kinds = [*KINDS] if given.kinds is None else given.kinds
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"no kind is called {', '.join(sorted(unknown))}: {', '.join(KINDS)}")
    # Files are written at every case: in memory where the system has a folder there.
    with tempfile.TemporaryDirectory(prefix="edgedeploy-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        if given.case is not None:
            return show(given, Path(name))
        started_s = time.monotonic()
        recording = recorded(given, Path(name) / "recording")
        tally = run(given, recording, Path(name))
    spent_s = time.monotonic() - started_s
    ends = ("refused", "accepted", "violation")
    sys.stdout.write(f"{'':10}{'cases':>10}{''.join(f'{end:>12}' for end in ends)}\n")
    for kind in sorted({kind for kind, _ in tally.counts}):
        found = [tally.counts[kind, end] for end in ends]
        sys.stdout.write(f"{kind:10}{sum(found):10}{''.join(f'{count:12}' for count in found)}\n")
    total = sum(tally.counts.values())
    sys.stdout.write(f"{total} cases in {spent_s:.0f} s, {total / spent_s:.0f} a second, {PROCESSES} processes\n")
    for index, kind, text in sorted(tally.violations)[:MOST_SHOWN]:
        sys.stdout.write(f"VIOLATION --seed {given.seed} --case {index} ({kind}) {text}\n")
    if tally.violations:
        sys.stdout.write(
            f"      repeat one: scripts/bench fuzz --seed {given.seed}{_kept(recording, given.seed)} --case N\n"
        )
    sys.stdout.write(f"{'ok  ' if not tally.violations else 'FAIL'}  {len(tally.violations)} violations\n")
    return int(given.check and bool(tally.violations))

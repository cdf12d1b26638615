"""Which faults are survived: runs the tests that are marked `fault` and says what of each line of the list ran and passed.

Each line is something that a lab's boards, networks, disks and files do sooner or later. A test that injects it for real is
marked `fault(N)`; one that pretends a part of it says which: `fault(N, simulated="...")`.
With --check exit 1 unless each line of the bar (1-31 and 41-55) has a test that pretends nothing and passed in this run, and
none that failed. Lines that no machine of ours can do for real are named with the reason; there a simulation has to pass.
Arguments after -- go to pytest. A whole run of the tests can be read instead: `pytest --fault-log FILE`, then --read FILE.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import ROOT, parser_of
from benchmarks.shared.fault_marks import Mark, marks
from benchmarks.shared.fault_outcomes import Outcome, read_log

EXTRAS: Final = ("study", "dev")

LINES: Final = {
    1: "a board reboots under a job: void, requeued once, then quarantined",
    2: "SSH drops before, during or after any step: taken up again, never two runs",
    3: "a frozen peer is noticed within 20 s",
    4: "the host is killed: the job ends by itself, resuming loses nothing",
    5: "an unknown exit status: the board's status file decides",
    6: "an orphan of an earlier run is ended before measuring",
    7: "a full disk: typed error, no half upload left, the old artifact intact",
    8: "a corrupt artifact: hash mismatch, never executed",
    9: "two runs race for a board: one wins, the other waits or exits 3",
    10: "a stale lock expires: boot id, process, silence",
    11: "the holder's link restarts: the lease still holds",
    12: "a late holder returns: its token is refused",
    13: "the wall clock jumps: no duration comes from it, the skew is recorded",
    14: "kill -9 at random points: nothing lost or doubled, the same front",
    15: "the database is locked or gone: bounded retries, results kept and told again",
    16: "SQLite on a network file system: refused at the start",
    17: "NaN, Inf, zero, negative, missing metric: typed failure, never on the front",
    18: "constant output or golden mismatch: an accuracy failure, not fast",
    19: "a hung kernel: time-out, kill, verified gone, else power cycle or quarantine",
    20: "throttling: invalid, cool-down, bounded retries",
    21: "a wrong governor: refused, or set and restored",
    22: "background load: noticed, invalid",
    23: "out of memory: memory_exceeded, not a crash",
    24: "trtexec or sudo missing: unavailable with the remedy",
    25: "a runtime of another architecture: caught before the upload",
    26: "a removed tool flag: commands are built by tool version",
    27: "a false PASS: positive markers required",
    28: "an unknown output format: fails loudly, keeps what was said",
    29: "silent fallback: what ran is compared with what was asked",
    30: "no power sensor: null with a reason",
    31: "an unknown or changed host key: hard stop",
    32: "pickled weights from elsewhere: refused",
    33: "a malicious ONNX file: parsed in a limited process, refused",
    34: "a foreign TensorRT plan: refused",
    35: "a bundle with traversal, link or bomb: refused before extraction",
    36: "an unsigned extra file: verification fails",
    37: "an old bundle replayed: refused by version policy",
    38: "commands or HTML in a name: inert",
    39: "secrets in logs, reports, bundles: none",
    40: "an activation that fails golden vectors: rolled back",
    41: "the baseline's worker is killed or its build fails: nothing is stored under the candidate",
    42: "a runtime dies while it is imported on the board: the board's failure",
    43: "a board is away between two jobs or at the start: waited for",
    44: "a link inside the study's folder: never followed for writing",
    45: "an empty, half, foreign, newer or conflicted file in the study's folder: set aside with a line",
    46: "the host's disk fills at any point: typed, nothing torn",
    47: "a file of ours on the host is damaged: named, made anew, the board is not blamed",
    48: "a reflashed board at resume: refused before anything is filed",
    49: "cloned SD cards: two boards",
    50: "two containers of one machine: one of them measures",
    51: "a mad or hostile board: its answers are typed and bounded, nothing is written elsewhere",
    52: "the user's ONNX hangs or grows while it runs: ended in a limited child",
    53: "a secret anywhere in a study file: not written, printed or published",
    54: "a folder of an older version: resumes",
    55: "the task's code changed: said, never mixed",
    56: "files are read while a release is activated: never a mix",
    57: "the state of the highest version is lost on a device with releases: refused",
    58: "a secure sum ends without an aggregate: an error",
    59: "a toolchain answers the same question differently: found by building twice, not the model's fault",
    60: "int8 that saturates on this processor: found, the 7-bit file is taken",
}
ASKED: Final = tuple(range(1, 58))
"""The bar. The others are listed; lines without any test belong to parts that edgedeploy does not have yet."""

CANNOT: Final = {
    20: "no machine that runs the tests overheats on demand, and none shows its throttling counters",
    21: "no machine that runs the tests has a clock governor or power modes",
    26: "no trtexec runs without NVIDIA's hardware: recorded logs of real ones stand in",
}
"""Lines of the bar that cannot be injected where the tests run, with the reason: a simulation has to pass."""

TESTS: Final = ROOT / "tests"


def verdict(line: int, found: Sequence[Outcome]) -> str:
    """What this run showed of a line: ``held``, ``held, simulated``, or why not."""
    if any(item.result == "failed" for item in found):
        return "FAILED"
    if any(item.result == "passed" and item.simulated is None for item in found):
        return "held"
    if any(item.result == "passed" for item in found):
        return "held, simulated" if line in CANNOT else "only simulated"
    return "skipped" if found else "no test"


def holds(line: int, found: Sequence[Outcome]) -> bool:
    return verdict(line, found) in ("held", "held, simulated")


def table(outcomes: Sequence[Outcome], lines: Sequence[int] = tuple(LINES)) -> str:
    """Per line: its verdict, how often its tests passed, failed and were skipped, and why they were."""
    rows = []
    for line in lines:
        found = [item for item in outcomes if item.line == line]
        counts = {word: sum(item.result == word for item in found) for word in ("passed", "failed", "skipped")}
        figures = ", ".join(f"{number} {word}" for word, number in counts.items() if number) or "nothing ran"
        rows.append(f"{line:2}  {verdict(line, found):15}  {LINES[line]} ({figures})")
        if line in CANNOT:
            rows.append(f"      cannot be injected here: {CANNOT[line]}")
        bad = [item for item in found if item.result != "passed"]
        rows += sorted({f"      {item.result}: {item.test}: {item.reason}" for item in bad})
    return "\n".join(rows) + "\n"


def listed(found: Sequence[Mark]) -> str:
    """The marks of each line, read from the tests without running them."""
    rows = []
    for line, text in LINES.items():
        rows.append(f"{line:2}  {text}")
        tests = [mark for mark in found if mark.line == line]
        for mark in sorted(tests, key=lambda mark: (mark.simulated is not None, mark.test)):
            rows.append(f"      {mark.test}" + (f"   [simulated: {mark.simulated}]" if mark.simulated else ""))
        if not tests:
            rows.append("      -")
    return "\n".join(rows) + "\n"


def run(log: Path, more: Sequence[str]) -> int:
    """Run the marked tests. Returns pytest's exit code: 0 all passed, 1 some failed, more when it did not get so far."""
    argv = [sys.executable, "-m", "pytest", "-m", "fault", "-q", "--fault-log", str(log), *(more or [str(TESTS)])]
    return subprocess.run(argv, cwd=ROOT, check=False).returncode


def judge(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
    """One sentence about the bar, and whether it holds."""
    by_line = {line: [item for item in outcomes if item.line == line] for line in ASKED}
    lacking = [line for line, found in by_line.items() if not holds(line, found)]
    real = sum(verdict(line, found) == "held" for line, found in by_line.items())
    named = [line for line, found in by_line.items() if verdict(line, found) == "held, simulated"]
    text = f"{real} of the {len(ASKED)} lines of the bar held against a real injection in this run"
    text += f"; only simulated, for the reasons above: {', '.join(map(str, named)) or 'none'}"
    return f"{text}; lacking: {', '.join(map(str, lacking)) or 'none'}\n", not lacking


def main(argv: Sequence[str]) -> int:
    parser = parser_of("faults", __doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar does not hold")
    parser.add_argument("--list", action="store_true", help="only list the marked tests; nothing runs")
    parser.add_argument("--read", type=Path, metavar="FILE", help="read the log of a run of pytest instead of running")
    parser.add_argument("pytest", nargs="*", help="after --: pytest's arguments, such as --long or the path of a test")
    given = parser.parse_args(argv)
    if given.list:
        sys.stdout.write(listed(list(marks(TESTS))))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgedeploy-faults-") as folder:
        log = given.read or Path(folder) / "log.jsonl"
        code = 0 if given.read else run(log, given.pytest)
        if code > 1 or not log.exists():
            sys.stderr.write(f"pytest wrote no log of the faults to {log} (its exit code: {code})\n")
            return 2
        outcomes = read_log(log)
    text, held = judge(outcomes)
    sys.stdout.write(f"{table(outcomes)}\n{text}")
    return int(given.check and not held)

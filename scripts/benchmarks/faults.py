"""Which tests survive which fault: read from the `fault` marks of the tests, without running them.

Each line of the list is something that a lab's boards, networks, disks and files do sooner or later. A test that injects
it for real is marked `fault(N)`; one that pretends a part of it says which: `fault(N, simulated="...")`.
With --check exit 1 unless at least 24 of the lines 1-16 and 19-31 have a test that pretends nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import ROOT, parser_of

EXTRAS: Final = ()

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
}
ASKED: Final = (*range(1, 17), *range(19, 32))
BAR: Final = 24
TESTS: Final = ROOT / "tests"


@dataclass(frozen=True)
class Mark:
    """``simulated`` names what the test pretends; None when nothing is."""

    line: int
    test: str
    simulated: str | None


def marks(folder: Path) -> Iterator[Mark]:
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(folder.parent)
        functions = [(None, node) for node in tree.body] + [
            (node.name, inner) for node in tree.body if isinstance(node, ast.ClassDef) for inner in node.body
        ]
        for group, node in functions:
            if isinstance(node, ast.FunctionDef):
                name = "::".join(part for part in (str(place), group, node.name) if part)
                yield from _marks_of(node, name)


def _marks_of(node: ast.FunctionDef, name: str) -> Iterator[Mark]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            simulated = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}.get("simulated")
            for argument in decorator.args:
                yield Mark(int(ast.literal_eval(argument)), name, simulated)


def main(argv: Sequence[str]) -> int:
    parser = parser_of("faults", __doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar does not hold")
    given = parser.parse_args(argv)
    found = list(marks(TESTS))
    for line, text in LINES.items():
        sys.stdout.write(f"{line:2}  {text}\n")
        tests = [mark for mark in found if mark.line == line]
        for mark in sorted(tests, key=lambda mark: (mark.simulated is not None, mark.test)):
            note = f"   [simulated: {mark.simulated}]" if mark.simulated else ""
            sys.stdout.write(f"      {mark.test}{note}\n")
        if not tests:
            sys.stdout.write("      -\n")
    real = {mark.line for mark in found if mark.simulated is None} & set(ASKED)
    lacking = ", ".join(str(line) for line in ASKED if line not in real) or "none"
    sys.stdout.write(f"\n{len(real)} of the {len(ASKED)} lines 1-16 and 19-31 have a test that pretends nothing")
    sys.stdout.write(f" (asked: {BAR}; lacking: {lacking}). They run with: scripts/test -m fault\n")
    return int(given.check and len(real) < BAR)

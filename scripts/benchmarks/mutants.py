"""Whether the near unit tests notice small mistakes: mutants of evidence, front, store and lease, and how many are killed.

A seeded sample of each file's mutants (--sample N of each, 0 for all) runs against the tests that call the changed
function. What was found is appended to a log as it is found: a run that was cut off goes on where it was. With
--check exit 1 unless at least 85 % are killed in each part. It is made for nights: hours for all of them, minutes for
a sample.

It is a mutator of our own, because the known ones do not fit this tree. mutmut puts its trampolines into the modules,
and the lease is sent to boards, where nothing but the standard library is; cosmic-ray starts pytest anew for each
mutant, which here costs ten seconds of imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import ROOT, parser_of
from benchmarks.shared.mutation import Mutant, mutants, mutated

EXTRAS: Final = ("study", "dev")

BAR: Final = 0.85
SLOWER: Final = 5.0
"""A mutant that takes this many times as long as its tests did, and ten seconds more, hangs: that is noticed."""


@dataclass(frozen=True)
class Part:
    """``files`` and ``tests`` are patterns below the root of the tree."""

    files: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self) -> list[str]:
        found = [str(path.relative_to(ROOT)) for pattern in self.files for path in sorted(ROOT.glob(pattern))]
        return [name for name in found if not name.endswith("__init__.py")]


PARTS: Final = {
    "evidence": Part(
        ("edgedeploy/evidence/*.py",),
        (
            "tests/unit/evidence",
            "tests/unit/records/test_metrics_of_run.py",
            "tests/unit/records/test_metric_table.py",
            "tests/unit/report",
            "tests/unit/runtime/test_power.py",
            "tests/unit/study/test_front_of_folder.py",
        ),
    ),
    "front": Part(("edgedeploy/study/front.py",), ("tests/unit/study/test_front_of_folder.py",)),
    "store": Part(
        ("edgedeploy/study/store.py", "edgedeploy/study/place.py", "edgedeploy/study/strays.py"),
        (
            "tests/unit/study/test_store_kept.py",
            "tests/unit/study/test_store_machine.py",
            "tests/unit/study/test_damaged_folder.py",
            "tests/unit/study/test_kept_cases.py",
        ),
    ),
    "lease": Part(
        ("edgedeploy/runtime/agent/lease.py",),
        ("tests/unit/runtime/test_lease.py", "tests/unit/runtime/test_lease_machine.py"),
    ),
}


@dataclass(frozen=True)
class Found:
    """``result`` is ``killed``, ``hung`` (which counts as killed) or ``survived``."""

    part: str
    file: str
    mutant: Mutant
    result: str

    @property
    def noticed(self) -> bool:
        return self.result in ("killed", "hung")


def key_of(file: str, mutant: Mutant, state: str) -> str:
    return hashlib.sha256(f"{state} {file} {mutant.place} {mutant.kind}".encode()).hexdigest()[:24]


def state_of(part: Part, file: str) -> str:
    """A digest of the file and of the tests: what was found holds as long as they are as they were."""
    tests = [ROOT / name for name in part.tests]
    paths = [
        ROOT / file,
        *(path for test in tests for path in (sorted(test.rglob("*.py")) if test.is_dir() else [test])),
    ]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def drawn(source: str, sample: int, seed: str) -> list[Mutant]:
    found = mutants(source)
    if sample and len(found) > sample:
        found = sorted(random.Random(seed).sample(found, sample), key=lambda mutant: mutant.place)
    return found


class Log:
    """What was found already. Kept line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._known: dict[str, str] = {}
        for line in lines:
            try:
                kept: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed
            self._known[kept["key"]] = kept["result"]

    def result(self, key: str) -> str | None:
        return self._known.get(key)

    def keep(self, key: str, found: Found) -> None:
        self._known[key] = found.result
        told = {"key": key, "result": found.result, "file": found.file, "line": found.mutant.line}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**told, "kind": found.mutant.kind, "text": found.mutant.text}) + "\n")


def run_part(name: str, part: Part, log: Log, sample: int, seed: int, jobs: int) -> Iterator[Found]:
    """Every drawn mutant of a part with its result; only what the log does not know is run."""
    files = part.paths()
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for file in files}
    states = {file: state_of(part, file) for file in files}
    waiting = []
    for file in files:
        for mutant in drawn(sources[file], sample, f"{seed} {file}"):
            key = key_of(file, mutant, states[file])
            known = log.result(key)
            if known is None:
                waiting.append((key, file, mutant))
            else:
                yield Found(name, file, mutant, known)
    if not waiting:
        return
    from benchmarks.shared.mutant_runs import Tree, coverage_of, import_beforehand

    with tempfile.TemporaryDirectory(prefix="edgedeploy-mutants-") as folder:
        trees = []
        for number in range(jobs):
            (Path(folder) / str(number)).mkdir()
            trees.append(Tree(ROOT, Path(folder) / str(number)))
        coverage = coverage_of(trees[0], files, part.tests)
        import_beforehand(coverage.modules, ROOT / "tests")

        def one(task: tuple[int, tuple[str, str, Mutant]]) -> tuple[str, Found]:
            number, (key, file, mutant) = task
            tests = coverage.tests_of(file, mutant.function) or coverage.tests_of(file, None)
            limit_s = SLOWER * sum(coverage.seconds[test] for test in tests) + 10
            tree = trees[number]
            with tree.changed(file, mutated(sources[file], mutant)):
                code = tree.run(tests, limit_s)
            result = "hung" if code is None else "survived" if code == 0 else "killed"
            return key, Found(name, file, mutant, result)

        lanes = [waiting[number::jobs] for number in range(jobs)]
        with ThreadPoolExecutor(jobs) as pool:
            for first in range(max(len(lane) for lane in lanes)):
                tasks = [(number, lane[first]) for number, lane in enumerate(lanes) if first < len(lane)]
                for key, found in pool.map(one, tasks):
                    log.keep(key, found)
                    yield found


def table(found: Sequence[Found], survivors: bool) -> str:
    rows = []
    for file in dict.fromkeys(item.file for item in found):
        of_file = [item for item in found if item.file == file]
        noticed = sum(item.noticed for item in of_file)
        rows.append(f"  {file:44} {noticed:4} of {len(of_file):4}  {noticed / len(of_file):6.1%}")
        left = [item for item in of_file if not item.noticed]
        rows += [
            f"      {item.result} {item.mutant.line}: {item.mutant.kind}: {item.mutant.text[:100]}"
            for item in left
            if survivors
        ]
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("mutants", __doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar does not hold")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="mutants of each file (20); 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which mutants are drawn (1)")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only this part; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (the number of cores)")
    parser.add_argument("--log", type=Path, default=ROOT / ".mutants.jsonl", help="what was found (.mutants.jsonl)")
    parser.add_argument("--survivors", action="store_true", help="also name what was not noticed")
    given = parser.parse_args(argv)
    log, started_s, held = Log(given.log), time.monotonic(), True
    for name in given.part or PARTS:
        found = list(run_part(name, PARTS[name], log, given.sample, given.seed, given.jobs))
        rate = sum(item.noticed for item in found) / len(found)
        held = held and rate >= BAR
        sys.stdout.write(f"{name}: {rate:.1%} of {len(found)} mutants killed (asked: {BAR:.0%})\n")
        sys.stdout.write(table(found, given.survivors))
        sys.stdout.flush()
    sys.stdout.write(f"{time.monotonic() - started_s:.0f} s\n")
    return int(given.check and not held)

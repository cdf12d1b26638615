"""How often "faster" is said wrongly on a loaded host, and how often a true 5 % is found.

Each pair is measured by the code that measures candidates: one process per side, blocks in ABBA order. One artifact runs
against itself, where any "faster" is false, and against one that does 21 identical convolutions instead of 20. Between
them the same processes are timed one after the other, as a stop watch would. Bursts of work on every core, started and
ended here, disturb all three alike; what else runs on the machine disturbs them as it likes.

Series are appended to RESULTS pair by pair, so that long studies can be made in pieces; the table is over all of them.
With --quiet there are no bursts: the true ratio. With --check exit 1 when a bar does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import DOOR, parser_of
from edgedeploy.evidence.verdict import latency_verdict
from edgedeploy.records.job import RawSide
from edgedeploy.runtime.agent.job import materialise
from edgedeploy.runtime.agent.measure import WorkerProcess, Workers, steady
from edgedeploy.runtime.files import Root, write_json
from edgedeploy.runtime.processes import cpu_time_ns
from edgedeploy.runtime.sensors.environment import BackgroundMeter
from edgedeploy.runtime.wire.job import JobSpec, MeasurePlan, Side
from edgedeploy.runtime.wire.serde import to_json

EXTRAS: Final = ("study",)

LAYERS: Final = 20
QUERIES: Final = 672
"""What a study times unless it says otherwise: 662, in whole ABBA rounds."""
BLOCK: Final = 8
CHANNELS, EDGE = 16, 18
BURN_LIMIT_S: Final = 1200.0
BURST_S, PAUSE_S = 0.15, 0.35
"""Mean lengths, exponentially distributed: each core is disturbed 30 % of the time."""


def write_model(path: Path, layers: int) -> None:
    """``layers`` convolutions of the same size, each with its ReLU: (1, 16, 18, 18) to the same."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shape = (CHANNELS, CHANNELS, 3, 3)
    weights = (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    nodes, tensors = [], []
    for index in range(layers):
        source, name = ("x" if index == 0 else f"r{index - 1}"), f"w{index}"
        tensors.append(numpy_helper.from_array(weights, name))
        nodes.append(helper.make_node("Conv", [source, name], [f"c{index}"], name=f"conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
    value = [1, CHANNELS, EDGE, EDGE]
    graph = helper.make_graph(
        nodes,
        f"{layers} layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, value)],
        [helper.make_tensor_value_info(f"r{layers - 1}", TensorProto.FLOAT, value)],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Bench:
    """Jobs of the measuring agent, laid out once: ``same`` is 20 layers against 20, ``slower`` 20 against 21."""

    def __init__(self, folder: Path) -> None:
        root = Root(folder)
        root.blobs.mkdir()
        root.jobs.mkdir()
        models = {layers: self._model(root, layers) for layers in (LAYERS, LAYERS + 1)}
        part = folder / "inputs.npz"
        inputs = np.random.default_rng(1).normal(size=(8, 1, CHANNELS, EDGE, EDGE)).astype(np.float32)
        np.savez(part, x=inputs)
        cases = _keep(root, part)
        self.jobs = {
            name: self._job(root, models[LAYERS], models[other], cases)
            for name, other in (("same", LAYERS), ("slower", LAYERS + 1))
        }

    @staticmethod
    def _model(root: Root, layers: int) -> str:
        part = root.folder / "model.onnx"
        write_model(part, layers)
        return _keep(root, part)

    @staticmethod
    def _job(root: Root, candidate: str, baseline: str, inputs: str) -> tuple[JobSpec, Path]:
        job_id = os.urandom(16).hex()
        sides = {
            name: Side("onnxruntime", "model.onnx", {}, 1, {"model.onnx": model}, inputs)
            for name, model in (("candidate", candidate), ("baseline", baseline))
        }
        plan = MeasurePlan(QUERIES, 20, BLOCK, cold_starts=0, collect_outputs=False, time_limit_s=60.0)
        job = JobSpec(job_id, 1, plan, sides["candidate"], sides["baseline"], busy_wait_s=0.0, orphan_grace_s=0.0)
        folder = root.job(job_id)
        folder.mkdir()
        write_json(folder / "job.json", to_json(job))
        materialise(root, job, folder)
        return job, folder

    def pair(self) -> dict[str, Any]:
        """One pair of each kind, in fresh processes."""
        with tempfile.TemporaryFile() as log:
            groups = {name: Workers(folder, job.job_id, log) for name, (job, folder) in self.jobs.items()}
            try:
                ours = groups["same"].start("candidate")
                others = {name: group.start("baseline") for name, group in groups.items()}
                every = [ours, *others.values()]
                for worker in every:
                    worker.wait_ready()
                meter = BackgroundMeter(lambda: time.process_time_ns() + sum(cpu_time_ns(w.pid) for w in every))
                found: dict[str, Any] = {"sequential": in_turn(ours, others["same"])}
                for name, (job, _) in self.jobs.items():
                    series = steady({"candidate": ours, "baseline": others[name]}, job.plan)
                    found[name] = {side: values["blocks_ns"] for side, values in series.items()}
                found["background_cores"] = meter.stop()["background_cpu_share"]
                for worker in every:
                    worker.finish()
                return found
            finally:
                for group in groups.values():
                    group.end_all()


def _keep(root: Root, part: Path) -> str:
    sha256 = hashlib.sha256(part.read_bytes()).hexdigest()
    part.replace(root.blob(sha256))
    return sha256


def in_turn(first: WorkerProcess, second: WorkerProcess) -> dict[str, list[int]]:
    """All queries of the one, then all of the other."""
    found = {}
    for name, worker in (("candidate", first), ("baseline", second)):
        worker.ask("warmup", queries=20)
        found[name] = worker.ask("block", queries=QUERIES)["block_ns"]
    return found


@contextmanager
def bursts(seed: int) -> Iterator[None]:
    """Disturb every core until the end of the block. The processes end when this one does, whatever ends it."""
    cores = sorted(os.sched_getaffinity(0))
    burning = [
        subprocess.Popen([sys.executable, str(DOOR), "noise", "--burn", str(core), str(seed)], stdin=subprocess.PIPE)
        for core in cores
    ]
    try:
        yield
    finally:
        for process in burning:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


def burn(core: int, seed: int) -> None:
    """Bursts of array work on one core until standard input ends, at most ``BURN_LIMIT_S``."""
    import select

    os.sched_setaffinity(0, [core])
    rng = random.Random(1000 * seed + core)
    data = np.random.default_rng(core).normal(size=1 << 16)
    give_up_s = time.monotonic() + BURN_LIMIT_S
    while time.monotonic() < give_up_s:
        until_s = time.monotonic() + rng.expovariate(1 / BURST_S)
        while time.monotonic() < until_s:
            np.sqrt(np.abs(data) + 1.0)
        if select.select([sys.stdin], [], [], rng.expovariate(1 / PAUSE_S))[0]:
            return


@dataclass(frozen=True)
class Share:
    """``hits`` of ``of``, with the exact two-sided 95 % interval of Clopper and Pearson (1934)."""

    hits: int
    of: int

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits} of {self.of} = {self.hits / self.of:.1%} [{low:.1%}, {high:.1%}]"

    def interval(self) -> tuple[float, float]:
        from scipy.stats import beta

        low = float(beta.ppf(0.025, self.hits, self.of - self.hits + 1)) if self.hits else 0.0
        high = float(beta.ppf(0.975, self.hits + 1, self.of - self.hits)) if self.hits < self.of else 1.0
        return low, high


def verdict_says_faster(row: dict[str, Any], kind: str) -> bool:
    found = latency_verdict(raw_side(row[kind]["candidate"]), raw_side(row[kind]["baseline"]))
    assert found is not None
    return found.word == "faster"


def raw_side(blocks_ns: Sequence[Sequence[int]]) -> RawSide:
    return RawSide(tuple(tuple(block) for block in blocks_ns), (), (), 1, {}, "CPU", "")


def medians_say_faster(row: dict[str, Any]) -> bool:
    """The stop watch: one, then the other, and the smaller median wins."""
    series = row["sequential"]
    return float(np.median(series["candidate"])) < float(np.median(series["baseline"]))


def test_says_faster(row: dict[str, Any]) -> bool:
    """The stop watch with a test that takes the queries for independent: Mann and Whitney, one-sided, 1 %."""
    from scipy.stats import mannwhitneyu

    series = row["sequential"]
    return bool(mannwhitneyu(series["candidate"], series["baseline"], alternative="less").pvalue < 0.01)


def count(rows: Sequence[dict[str, Any]], says: Callable[[dict[str, Any]], bool]) -> Share:
    return Share(sum(says(row) for row in rows), len(rows))


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], bool]:
    """Markdown lines over all pairs, and whether both bars hold."""
    false = count(rows, lambda row: verdict_says_faster(row, "same"))
    found = count(rows, lambda row: verdict_says_faster(row, "slower"))
    cores = [row["background_cores"] for row in rows]
    median = float(np.median([ratio_of(row["slower"]) for row in rows]))
    low, mid, high = np.quantile([ratio_of(row["same"]) for row in rows], [0.025, 0.5, 0.975])
    queries = sum(len(block) for block in rows[0]["same"]["candidate"])
    lines = [
        f"{len(rows)} pairs of each kind, {queries} queries a side in blocks of {BLOCK}, {rows[0]['utc']} to "
        f"{rows[-1]['utc']} UTC, on {machine()}. All other processes together, the bursts among them, used "
        f"{np.median(cores):.2f} cores ({min(cores):.2f} to {max(cores):.2f}) meanwhile. Intervals are exact, 95 %.",
        "",
        '| one artifact against itself: false "faster" | |',
        "|---|---|",
        f"| verdict on interleaved blocks | {false} |",
        f"| one after the other, smaller median wins | {count(rows, medians_say_faster)} |",
        f"| one after the other, Mann-Whitney at 1 % | {count(rows, test_says_faster)} |",
        "",
        '| 20 layers against 21: "faster" found | |',
        "|---|---|",
        f"| verdict on interleaved blocks | {found} |",
        "",
        f"Median of the ratios: {mid:.4f} against itself (95 % of pairs from {low:.4f} to {high:.4f}), {median:.4f} "
        f"against 21 layers (by the number of layers {LAYERS / (LAYERS + 1):.4f}).",
    ]
    return lines, false.hits <= 0.01 * false.of and found.hits >= 0.95 * found.of


def ratio_of(pair: dict[str, Any]) -> float:
    medians = [[np.median(block) for block in pair[side]] for side in ("candidate", "baseline")]
    return float(np.median(np.divide(*medians)))


def machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return f"{os.cpu_count()} cores of {names[0].partition(':')[2].strip() if names else platform.machine()}"


def measure_pairs(results: Path, pairs: int, quiet: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="edgedeploy-noise-") as folder:
        bench = Bench(Path(folder))
        with nullcontext() if quiet else bursts(seed=time.time_ns() % 2**20):
            for number in range(1, pairs + 1):
                row = {"utc": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), **bench.pair()}
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                sys.stderr.write(f"\r{number} of {pairs}")
    sys.stderr.write("\n")


def main(argv: Sequence[str]) -> int:
    parser = parser_of("noise", __doc__)
    parser.add_argument("results", nargs="?", type=Path, default=Path("out/noise.jsonl"), help="(out/noise.jsonl)")
    parser.add_argument("--pairs", type=int, default=200, help="how many to add (0: the table of what is there)")
    parser.add_argument("--quiet", action="store_true", help="no bursts: the true ratio")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    parser.add_argument("--burn", type=int, nargs=2, metavar=("CORE", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.burn:
        burn(*given.burn)
        return 0
    given.results.parent.mkdir(parents=True, exist_ok=True)
    if given.pairs:
        measure_pairs(given.results, given.pairs, given.quiet)
    rows = [json.loads(line) for line in given.results.read_text(encoding="utf-8").splitlines()]
    lines, holds = table(rows)
    sys.stdout.write("\n".join(lines) + "\n")
    return int(given.check and not holds)

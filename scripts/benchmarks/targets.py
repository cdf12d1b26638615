"""Every network on every target in every precision: measured, shown without a device, or refused with the reason.

A cell is measured through the product's own agent on this machine, interleaved with ONNX Runtime float32 of the same
network. Cells lie in the folder as JSON; what is there already is kept, so an interrupted run goes on; only cells whose runs
were all invalid are tried again. The page of the documentation is written with --write.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import PAGES, parser_of
from benchmarks.shared.networks import CASES, NETWORKS, Network
from benchmarks.shared.sources import GOLDEN_CASES, LIMITS, REPEATS, THREADS, Source, read_outputs, say
from edgedeploy.boards.open import open_board
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.statistics import block_medians, pair_ratios, stability
from edgedeploy.files import read_json, write_atomic, write_json
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.interfaces.target import Target
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, Payload, RawRun
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.study.store import utc_now
from edgedeploy.targets.registry import find_targets
from edgedeploy.targets.tensorrt import TensorRtTarget, verdict

EXTRAS: Final = ("study", "litert", "tensorrt")

PAGE: Final = PAGES / "targets.md"
PLAN: Final = MeasurePlan(queries=96, warmup=5, block=8, cold_starts=1, time_limit_s=600.0)
BASELINE: Final = ("onnxruntime", "float32")


@dataclass(frozen=True)
class Cell:
    """``label`` is ``measured`` (numbers follow), ``built``, ``parsed`` or ``lint`` (a toolchain without a device took it so
    far), ``refused`` (a typed error said no), or ``missing`` (something is not at hand). Times in ns; ``ratio`` is the
    median over interleaved block pairs against ONNX Runtime float32, ``ratio_low`` and ``ratio_high`` its quartiles;
    ``rel_l2`` the worst output's distance from the float reference on the golden cases."""

    network: str
    target: str
    precision: str
    label: str
    reason: str = ""
    latency_p50_ns: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    rel_l2: float | None = None
    size_bytes: int | None = None
    executed: Mapping[str, int] | None = None
    version: str = ""
    cause: str | None = None
    created_utc: str = ""


class Matrix:
    """Fills cells on one board that is held for the whole time."""

    def __init__(self, folder: Path, session: BoardSession, targets: Mapping[str, Target]) -> None:
        self.folder = folder
        self.session = session
        self.targets = targets
        self._baseline: tuple[str, Payload] | None = None

    def cell(self, source: Source, target: Target, precision: str) -> Cell:
        empty = Cell(source.network.name, target.name, precision, "missing", created_utc=utc_now())
        if source.network.file and not source.network.path.is_file():
            return replace(empty, reason=f"the file {source.network.file} is not at hand")
        readiness = target.probe()
        if not readiness.ready:
            return replace(empty, reason=readiness.found)
        try:
            if isinstance(target, TensorRtTarget):
                return self._checked(empty, source)
            payload = source.build(target, precision)
            if target.name not in self.session.info.runtimes:
                return replace(empty, label="built", reason="no runtime for it on this machine")
            return self._measured(empty, source, payload)
        except EdgeDeployError as exc:
            return replace(empty, label="refused", reason=f"{type(exc).__name__}: {exc.asked}: {exc.found}")

    def _checked(self, empty: Cell, source: Source) -> Cell:
        """How far a toolchain without a GPU came: no time is claimed."""
        folder = source.folder / f"{empty.target}-{empty.precision}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found = verdict(source.request(empty.precision), folder)
        label = "refused" if found.level is None else found.level.value
        good = f"by {found.by}; for TensorRT {', '.join(found.releases)}" if found.releases else found.by
        return replace(empty, label=label, reason="; ".join((good, *found.reasons)))

    def _measured(self, empty: Cell, source: Source, payload: Payload) -> Cell:
        baseline = self._baseline_of(source)
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory(prefix="edgedeploy-matrix-") as place:
                raw = self.session.measure(Job(payload, baseline, PLAN), Path(place))
                outputs = read_outputs(raw)
            cause = stability(raw.baseline, raw.environment, LIMITS) if raw.baseline else None
            if cause is None:
                break
        precision = payload.artifact.precision
        check_executed(precision, raw.candidate.executed)
        parity = check_parity(source.golden, outputs, precision)
        return replace(empty, label="measured", cause=cause, rel_l2=parity["rel_l2"], **_numbers(raw, payload.artifact))

    def _baseline_of(self, source: Source) -> Payload:
        if self._baseline is None or self._baseline[0] != source.network.name:
            name, precision = BASELINE
            folder = source.folder / "baseline"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            artifact = self.targets[name].build(source.request(precision), folder)
            self._baseline = (source.network.name, Payload(artifact, folder, source.inputs, THREADS))
        return self._baseline[1]


def _numbers(raw: RawRun, artifact: Artifact) -> dict[str, Any]:
    assert raw.baseline is not None
    ratios = pair_ratios(block_medians(raw.candidate), block_medians(raw.baseline))
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {
        "latency_p50_ns": float(np.median([n for block in raw.candidate.blocks_ns for n in block])),
        "ratio": float(middle),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "size_bytes": artifact.size_bytes,
        "executed": dict(raw.candidate.executed),
        "version": raw.candidate.runtime_version,
    }


def fill(folder: Path, networks: Sequence[Network], names: Sequence[str]) -> list[Cell]:
    """Every cell that is not in ``folder`` yet, one by one, said as it goes. Returns all of them."""
    found = {plugin.name: plugin for plugin in find_targets()}
    targets = {name: plugin.load() for name, plugin in found.items() if plugin.target is not None}
    wanted = [
        (network, target, precision)
        for network in networks
        for target in targets.values()
        if not names or target.name in names
        for precision in target.precisions
    ]
    board = open_board({"name": "this machine", "kind": "local", "root": str(folder / "board")})
    started_s, made = time.monotonic(), 0
    cells: list[Cell] = []
    with board.session() as session:
        write_json(folder / "board.json", session.info.as_json())
        matrix, source = Matrix(folder, session, targets), None
        for number, (network, target, precision) in enumerate(wanted):
            path = folder / "cells" / f"{slug(network.name)}-{target.name}-{precision}.json"
            if not path.is_file() or read_json(path)["cause"]:
                if source is None or source.network != network:
                    source = Source(network, folder / slug(network.name))
                cell = matrix.cell(source, target, precision)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, asdict(cell))
                made += 1
                left_s = (time.monotonic() - started_s) / made * (len(wanted) - number - 1)
                say(f"[{number + 1}/{len(wanted)}, ETA {left_s / 60:.0f} min] {network.name}, {text_line(cell)}")
            cells.append(Cell(**read_json(path)))
    return cells


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def text_line(cell: Cell) -> str:
    return f"{cell.target} {cell.precision}: {cell_text(cell)}"


def cell_text(cell: Cell) -> str:
    if cell.cause:
        return f"no valid run: {cell.cause}"
    if cell.latency_p50_ns is None or cell.ratio is None or cell.rel_l2 is None:
        return f"{cell.label}: {cell.reason}" if cell.reason else cell.label
    return (
        f"{cell.label}, {cell.latency_p50_ns / 1e6:.2f} ms, {cell.ratio:.2f}x"
        f" ({cell.ratio_low:.2f} to {cell.ratio_high:.2f}), L2 {cell.rel_l2:.1g}"
    )


def document(cells: Sequence[Cell], board: BoardInfo) -> str:
    """The page: one table a target, networks down, precisions across; reasons that are long stand below as notes."""
    notes: dict[str, int] = {}
    lines = [
        "# Networks, targets, precisions",
        "",
        f"Made by `scripts/bench targets` on {min(cell.created_utc for cell in cells)[:10]}; do not edit by hand. Machine:"
        f" {board.cpu}, {board.cores} cores, {board.os}, {THREADS} threads a session ({', '.join(board.isa)}).",
        "",
        "A `measured` cell is a run of the product's agent on that machine: median latency, the median ratio over",
        f"interleaved block pairs to ONNX Runtime float32 of the same network with its quartiles ({PLAN.queries} queries a",
        f"side), and the relative L2 distance to the float reference of the worst output on {GOLDEN_CASES} cases. `built`",
        "and `parsed` are what a toolchain without a device could show: no time stands there, and none is implied.",
        f"Calibration and comparison: {CASES} drawn pictures (ultrasound; faces for the detectors). The UNet is trained,",
        "MobileNetV2-like and small ViT have seeded weights, the others are what their makers trained.",
        "",
    ]
    for target in dict.fromkeys(cell.target for cell in cells):
        mine = [cell for cell in cells if cell.target == target]
        precisions = list(dict.fromkeys(cell.precision for cell in mine))
        versions = sorted({cell.version for cell in mine if cell.version})
        lines += [f"## {target}" + (f" ({', '.join(versions)})" if versions else ""), ""]
        lines += ["| network | " + " | ".join(precisions) + " |", "|---" * (len(precisions) + 1) + "|"]
        for network in dict.fromkeys(cell.network for cell in mine):
            row = {cell.precision: _short(cell, notes) for cell in mine if cell.network == network}
            lines.append(f"| {network} | " + " | ".join(row.get(precision, "") for precision in precisions) + " |")
        lines.append("")
    lines += ["## Notes", ""] + [f"{number}. {reason}" for reason, number in notes.items()]
    return "\n".join(lines) + "\n"


def _short(cell: Cell, notes: dict[str, int]) -> str:
    reason = cell.cause or cell.reason
    text = "no valid run" if cell.cause else cell_text(replace(cell, reason=""))
    if not reason:
        return text
    clean = " ".join(reason.split()).replace("|", "/")
    return f"{text} [{notes.setdefault(clean, len(notes) + 1)}]"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("targets", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("studies/targets"), help="(studies/targets)")
    parser.add_argument("--networks", nargs="*", default=[], help="only those whose name begins with one of these")
    parser.add_argument("--targets", nargs="*", default=[], help="only these")
    text = "write the page, to docs/reference/targets.md unless FILE says where"
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=PAGE, help=text)
    chosen = parser.parse_args(argv)
    networks = [
        network for network in NETWORKS if not chosen.networks or network.name.startswith(tuple(chosen.networks))
    ]
    chosen.folder.mkdir(parents=True, exist_ok=True)
    cells = fill(chosen.folder, networks, chosen.targets)
    page = document(cells, BoardInfo.from_json(read_json(chosen.folder / "board.json")))
    if chosen.write:
        chosen.write.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(chosen.write, page.encode())
    else:
        sys.stdout.write(page)
    labels = [cell.label for cell in cells]
    say(", ".join(f"{labels.count(label)} {label}" for label in dict.fromkeys(labels)))
    return 0

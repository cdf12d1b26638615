"""int8 by each quantizer, from the trained models of a study: size, distance to float, CPU time.

FOLDER is that of a finished study of the embedded demo (`edgedeploy demo`). Of each width one float model is taken, of the
baseline's architecture where there is one, and built by every quantizer of ONNX Runtime and OpenVINO. All artifacts of a
width then answer in turn, block by block, in one process on one thread; what stands in the table is the median over blocks
of the CPU time beside that of ONNX Runtime's float32 in the same round. The distance is that of all selection cases
together. Graph bytes are what the files hold beside one byte a weight.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import PAGES, parser_of
from benchmarks.shared.host import machine
from benchmarks.shared.turns import cpu_times
from edgedeploy.files import write_atomic
from edgedeploy.files.writing import read_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import Reference, describe, reference_outputs
from edgedeploy.reference.parity import compare
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.store import utc_now
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound

EXTRAS: Final = ("study",)

PAGE: Final = PAGES / "quantizers.md"
ROUNDS: Final = 20
QUERIES: Final = 6


@dataclass(frozen=True)
class Row:
    model: str
    target: str
    quantizer: str
    size_bytes: int
    graph_bytes: int
    sqnr_db: float
    worst_sqnr_db: float
    cpu_ratio: float
    ratio_low: float
    ratio_high: float


def models(folder: Path, baseline: dict[str, Any]) -> Iterator[tuple[Variant, Reference]]:
    """A measured float model of each width, the widest first."""
    found: dict[float, tuple[bool, Variant, Path]] = {}
    for path in sorted((folder / "measurements").glob("*.json")):
        variant = Variant.from_json(read_json(path)["variant"])
        reference = folder / "models" / variant.model_digest / "reference.onnx"
        if variant.training or variant.recovered or not reference.is_file():
            continue
        other = variant.arch_kwargs != baseline
        if variant.width not in found or other < found[variant.width][0]:
            found[variant.width] = (other, variant, reference)
    for width in sorted(found, reverse=True):
        yield found[width][1], describe(found[width][2])


def rows_of(variant: Variant, reference: Reference, task: Any, place: Path) -> list[Row]:
    arch = variant.arch_kwargs
    model = ", ".join([f"width {variant.width:g}", *map(str, arch.values())])

    def calibration() -> Iterator[Any]:
        return (task.inputs(case, **arch) for case in task.cases("calibration"))

    asked = BuildRequest(reference.path, reference.inputs, reference.outputs, "int8", calibration)
    targets = (OnnxRuntimeTarget(), OpenVinoTarget())
    wanted = [(target, name) for target in targets for name in ("float32", *target.quantizers)]
    feeds = [task.inputs(case, **arch) for case in task.cases("selection")]
    exact = list(reference_outputs(reference, feeds))
    weights = weight_count(reference.path)
    built, sessions = [], []
    for index, (target, name) in enumerate(wanted):
        float_model = name == "float32"
        request = replace(asked, precision="float32") if float_model else replace(asked, quantizer=name)
        artifact = target.build(request, place / str(index))
        built.append(artifact)
        settings = dict(artifact.settings)
        sessions.append(open_session(target.name, place / str(index), artifact.entry, settings, 1))
    for session in sessions:
        session.run(feeds[0])
    times = cpu_times(sessions, list(itertools.islice(itertools.cycle(feeds), QUERIES)), ROUNDS)
    rows = []
    for index, (target, name) in enumerate(wanted):
        ratios = times[index] / times[0]
        outputs = [sessions[index].run(feed) for feed in feeds]
        together = compare(stacked(exact), stacked(outputs))
        worst = min(found["sqnr_db"] for pair in zip(exact, outputs, strict=True) for found in compare(*pair).values())
        size = built[index].size_bytes
        graph = size - weights * (4 if name == "float32" else 1)
        low, middle, high = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
        total = min(found["sqnr_db"] for found in together.values())
        rows.append(Row(model, target.name, name, size, graph, total, worst, middle, low, high))
    return rows


def stacked(outputs: Sequence[Any]) -> dict[str, Any]:
    return {name: np.stack([row[name] for row in outputs]) for name in outputs[0]}


def weight_count(path: Path) -> int:
    import onnx

    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(str(path)).graph.initializer if len(tensor.dims) > 1)


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| model | target | quantizer | size | of it graph | SQNR | worst case | CPU time, beside ONNX Runtime float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        exact = row.quantizer == "float32"
        distances = "- | -" if exact else f"{row.sqnr_db:.1f} dB | {row.worst_sqnr_db:.1f} dB"
        lines.append(
            f"| {row.model} | {row.target} | {row.quantizer} | {row.size_bytes / 1000:.1f} kB |"
            f" {row.graph_bytes / 1000:.1f} kB | {distances} |"
            f" {row.cpu_ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], load: str) -> str:
    return "\n".join(
        (
            "# int8 by each quantizer",
            "",
            f"Made by `scripts/bench quantizers` on {utc_now()[:10]}; do not edit by hand.",
            f"Machine: {machine()}; load {load}.",
            "",
            "The trained UNets of a demo study, one float model a width, calibrated on the task's 32 calibration cases;",
            "SQNR against the float model on its selection cases, all together and the worst one. One thread;",
            f"{ROUNDS} rounds of {QUERIES} queries each in turn in one process: the median, with quartiles, of the CPU time",
            "beside ONNX Runtime's float32 in the same round. Graph: the bytes of the files beside one a weight (four in",
            "float32). Files of `openvino` `nncf` are what the target makes when nobody says.",
            "",
            table(rows),
        )
    )


def main(argv: Sequence[str]) -> int:
    parser = parser_of("quantizers", __doc__)
    parser.add_argument("folder", type=Path, help="of a finished demo study")
    parser.add_argument("--width", type=float, action="append", help="only models of this width (may be repeated)")
    text = "write the page, to docs/reference/quantizers.md unless FILE says where"
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=PAGE, help=text)
    chosen = parser.parse_args(argv)
    task = SyntheticUltrasound()
    arch = {name: values[0] for name, values in task.architecture.items()}
    rows: list[Row] = []
    for variant, reference in models(chosen.folder, arch):
        if chosen.width and variant.width not in chosen.width:
            continue
        with tempfile.TemporaryDirectory(prefix="edgedeploy-quantizers-") as place:
            rows += rows_of(variant, reference, task, Path(place))
    load = " to ".join(f"{value:.1f}" for value in sorted(os.getloadavg()[:2]))
    if chosen.write:
        write_atomic(chosen.write, page(rows, load).encode())
    sys.stdout.write(table(rows))
    return 0 if rows else 1

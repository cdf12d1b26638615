"""Our int8 artifact of the trained UNet against what the target's own tool makes.

Both run in one session on this machine, in interleaved blocks; accuracy is the Dice of both on the selection cases of the
embedded task: more of them than a study looks at, because the differences are smaller than what 40 cases can tell. The
tools' recipes are those of their own introductions, nothing tuned:

onnxruntime: ``quant_pre_process``, then ``quantize_static`` with its defaults.
openvino: ``openvino.convert_model``, then ``nncf.quantize`` with its defaults, then ``openvino.save_model``.
litert: ``litert_torch.convert``, then ai-edge-quantizer's ``static_wi8_ai8`` recipe.

The page of the documentation is written with --write. Exit 1 when a bar does not hold.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks import PAGES, parser_of
from benchmarks.shared.networks import NETWORKS
from benchmarks.shared.sources import LIMITS, REPEATS, THREADS, Source, read_outputs, say
from edgedeploy.boards.open import open_board
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.bootstrap import drawn_units, resampled_means
from edgedeploy.evidence.statistics import block_medians, cpu_per_query, pair_ratios, stability
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.study.store import utc_now
from edgedeploy.targets.registry import find_targets
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

EXTRAS: Final = ("study", "litert", "tensorrt")

PAGE: Final = PAGES / "compare.md"
SELECTION_CASES: Final = 200
PLAN: Final = MeasurePlan(queries=400, warmup=20, block=8, cold_starts=1, time_limit_s=600.0)


def by_onnxruntime(source: UNetSource, folder: Path) -> dict[str, str]:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # an untyped library's class
        def __init__(self) -> None:
            self.cases = source.calibration()

        def get_next(self) -> Any:
            return next(self.cases, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(source.reference.path), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(folder / "model.onnx"), Reader())
    prepared.unlink()
    return {}


def by_openvino(source: UNetSource, folder: Path) -> dict[str, str]:
    import nncf
    import openvino

    model = openvino.convert_model(str(source.reference.path))
    data = nncf.Dataset([feed["image"] for feed in source.calibration()])
    openvino.save_model(nncf.quantize(model, data), str(folder / "model.xml"))
    return {}


def by_litert(source: UNetSource, folder: Path) -> dict[str, str]:
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe

    class Named(torch.nn.Module):
        """Gives input and output the names by which the session asks for them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.module

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out0": self.module(image)}

    feeds = list(source.calibration())
    sample = {"image": torch.from_numpy(np.array(feeds[0]["image"]))}
    floating = folder / "float.tflite"
    litert_torch.convert(Named().eval(), sample_kwargs=sample).export(str(floating))
    tool = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8())
    ranges = tool.calibrate({"serving_default": feeds})
    tool.quantize(ranges).export_model(str(folder / "model.tflite"))
    floating.unlink()
    return {}


TOOLS: Final[Mapping[str, tuple[str, str, Callable[[UNetSource, Path], dict[str, str]]]]] = {
    "onnxruntime": ("quantize_static", "model.onnx", by_onnxruntime),
    "openvino": ("nncf.quantize", "model.xml", by_openvino),
    "litert": ("ai-edge-quantizer", "model.tflite", by_litert),
}
"""Target -> the tool's name, the file it leaves, and the function that follows its introduction."""


class UNetSource(Source):
    """The UNet with the embedded task's own calibration and selection cases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(NETWORKS[0], folder)
        self.task = SyntheticUltrasound(UltrasoundOptions(selection_cases=SELECTION_CASES))
        self.arch = {name: values[0] for name, values in self.task.architecture.items()}

    def calibration(self) -> Any:
        for case in self.task.cases("calibration"):
            yield self.task.inputs(case, **self.arch)

    def cases(self) -> Any:
        return self.calibration()

    @property
    def inputs(self) -> Path:  # the selection cases instead of the golden ones
        path = self.folder / f"selection-{SELECTION_CASES}.npz"
        if not path.is_file():
            rows = [self.task.inputs(case, **self.arch) for case in self.task.cases("selection")]
            np.savez(path, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
        return path

    def dice(self, outputs: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """Dice of each selection case, mean over both classes; NaN where neither is there."""
        scores = []
        for row, case in enumerate(self.task.cases("selection")):
            found = self.task.evaluate({name: rows[row] for name, rows in outputs.items()}, case)
            scores.append(found["dice_mean"])
        return np.array(scores, np.float64)


@dataclass(frozen=True)
class Duel:
    """``ratio`` is our latency over the tool's, median of interleaved block pairs with its quartiles; ``gain`` our Dice less
    the tool's with its 95 % interval over the cases (paired bootstrap); ``cause`` says why the run's conditions did not
    hold."""

    target: str
    tool: str
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ratio: float
    our_dice: float
    their_dice: float
    gain: tuple[float, float, float]
    cause: str | None

    @property
    def holds(self) -> bool:
        return self.cause is None and self.ratio <= 1.05 and self.our_dice >= self.their_dice


def duel(source: UNetSource, session: BoardSession, target: Any) -> Duel:
    tool, entry, make = TOOLS[target.name]
    ours = source.build(target, "int8")
    theirs = _by_tool(source, ours, entry, make)
    for _ in range(REPEATS):
        dice = []
        for payload in (theirs, ours):
            with tempfile.TemporaryDirectory(prefix="edgedeploy-tools-") as place:
                plan = replace(PLAN, queries=0, cold_starts=0)
                dice.append(source.dice(read_outputs(session.measure(Job(payload, None, plan), Path(place)))))
        with tempfile.TemporaryDirectory(prefix="edgedeploy-tools-") as place:
            raw = session.measure(Job(ours, theirs, PLAN), Path(place))
        assert raw.baseline is not None
        cause = stability(raw.baseline, raw.environment, LIMITS)
        if cause is None:
            break
    ratios = pair_ratios(block_medians(raw.candidate), block_medians(raw.baseline))
    low, middle, high = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    cpu = float(np.median(pair_ratios(cpu_per_query(raw.candidate), cpu_per_query(raw.baseline))))
    gains = (dice[1] - dice[0])[np.isfinite(dice[0])]
    spread = np.quantile(resampled_means(gains, drawn_units(0, gains.size)), [0.025, 0.975])
    gain = (float(gains.mean()), float(spread[0]), float(spread[1]))
    means = [float(np.nanmean(scores)) for scores in dice]
    return Duel(target.name, tool, middle, low, high, cpu, means[1], means[0], gain, cause)


def _by_tool(
    source: UNetSource, ours: Payload, entry: str, make: Callable[[UNetSource, Path], dict[str, str]]
) -> Payload:
    folder = source.folder / f"{ours.artifact.target}-by-tool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = make(source, folder)
    artifact = Artifact.of_folder(
        folder,
        target=ours.artifact.target,
        precision="int8",
        entry=entry,
        inputs=ours.artifact.inputs,
        outputs=ours.artifact.outputs,
        settings=settings,
        reference_sha256=ours.artifact.reference_sha256,
        built_with=dict(ours.artifact.built_with),
    )
    return Payload(artifact, folder, source.inputs, THREADS)


def table(duels: Sequence[Duel]) -> str:
    lines = [
        "| target | tool's recipe | latency, ours / tool's | CPU time, ours / tool's "
        "| Dice, ours | tool's | difference (95 %) | bar |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in duels:
        verdict = "holds" if item.holds else item.cause or "missed"
        lines.append(
            f"| {item.target} | {item.tool} | {item.ratio:.2f} ({item.ratio_low:.2f} to {item.ratio_high:.2f}) |"
            f" {item.cpu_ratio:.2f} | {item.our_dice:.4f} | {item.their_dice:.4f} |"
            f" {item.gain[0]:+.4f} ({item.gain[1]:+.4f} to {item.gain[2]:+.4f}) | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def page(duels: Sequence[Duel], board: BoardInfo) -> str:
    return "\n".join(
        (
            "# int8 against the targets' own tools",
            "",
            f"Made by `scripts/bench tools` on {utc_now()[:10]}; do not edit by hand.",
            f"Machine: {board.cpu}, {board.cores} cores, {board.os}.",
            "",
            f"The trained UNet of the embedded study, {PLAN.queries} queries a side in interleaved blocks of one session",
            f"(median of the block pairs, with quartiles), {THREADS} threads; Dice on {SELECTION_CASES} cases of the task's",
            "selection split, with the 95 % interval of the paired difference. Bar: no slower than 1.05 of the tool's, Dice",
            "no lower. TensorRT is not here: without a GPU there is no time to compare.",
            "",
            "Where the difference is nothing for every case, both files compute the same numbers. ai-edge-quantizer's file",
            "takes and gives int8; turning real numbers into it and back is then part of the query, as it is in a product.",
            "",
            table(duels),
        )
    )


def main(argv: Sequence[str]) -> int:
    parser = parser_of("tools", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("studies/targets"), help="(studies/targets)")
    text = "write the page, to docs/reference/compare.md unless FILE says where"
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=PAGE, help=text)
    chosen = parser.parse_args(argv)
    source = UNetSource(chosen.folder / "tools")
    source.folder.mkdir(parents=True, exist_ok=True)
    plugins = {plugin.name: plugin for plugin in find_targets()}
    board = open_board({"name": "this machine", "kind": "local", "root": str(chosen.folder / "board")})
    duels = []
    with board.session() as session:
        info = session.info
        for name in TOOLS:
            try:
                target = plugins[name].load()
                readiness = target.probe()
                if not readiness.ready:
                    say(f"{name}: {readiness.found}")
                    continue
                duels.append(duel(source, session, target))
                say(table(duels[-1:]))
            except (EdgeDeployError, KeyError) as exc:
                say(f"{name}: {exc}")
    if chosen.write:
        write_atomic(chosen.write, page(duels, info).encode())
    sys.stdout.write(table(duels))
    return 0 if duels and all(item.holds for item in duels) else 1

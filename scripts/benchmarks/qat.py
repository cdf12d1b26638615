"""What training with quantizers gains over calibration after pruning, and of what the gain is made.

Network, checkpoint, images and recipe of recovery are those of `scripts/bench contest`; --out is the contest's folder, and a
checkpoint that is missing there is trained first. Of each width the checkpoint is pruned and recovered (the whole width is
the checkpoint itself). Then, by the recipe of `training = "qat"` and on the same batches, it is trained on without
quantizers and with them. What was not trained with quantizers is made int8 by calibration (ONNX Runtime). So the gain of
training with quantizers is the sum of two:

training on:  calibrated after training on, over calibrated before it;
quantizers:   trained with quantizers, over calibrated after training on without them.

Dice is the mean of nerve and vessel over the contest's 40 selection and 40 confirmation cases together; differences are of
pairs with the same seed, with their standard error. What was found is kept in --out, so that a run that was cut off goes
on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from benchmarks import PAGES, parser_of
from benchmarks.contest_kit.checkpoint import Source, shared_images, train_once
from benchmarks.contest_kit.ours import STUDY
from benchmarks.contest_kit.scoring import SPLITS, mean_dice
from benchmarks.contest_kit.task import ContestTask, make_task
from benchmarks.shared.host import machine
from benchmarks.shared.sources import say
from edgedeploy.compress.model import Further, derive
from edgedeploy.compress.qat.train import qat_recipe, train_quantized
from edgedeploy.compress.training import fit
from edgedeploy.errors import EdgeDeployError
from edgedeploy.files import read_json, write_atomic, write_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.variant import Variant
from edgedeploy.reference.copies import copied
from edgedeploy.reference.export import Reference, export_reference
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.store import utc_now
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

EXTRAS: Final = ("study",)

PAGE: Final = PAGES / "qat.md"
WIDTHS: Final = (1.0, 0.5, 0.3)
RATES: Final = (0.1, 1.0)
"""Of the learning rate of recovery. The first is that of ``training = "qat"``."""


@dataclass(frozen=True)
class Row:
    """Dice of the networks that were made of one recovered network."""

    width: float
    rate: float
    seed: int
    float_before: float
    calibrated_before: float
    float_after: float
    calibrated_after: float
    qat: float

    @property
    def rounding(self) -> float:
        return self.float_before - self.calibrated_before

    @property
    def gain(self) -> float:
        return self.qat - self.calibrated_before

    @property
    def training_on(self) -> float:
        return self.calibrated_after - self.calibrated_before

    @property
    def quantizers(self) -> float:
        return self.qat - self.calibrated_after


@dataclass(frozen=True)
class Lab:
    """The contest's checkpoint, and ``recovered`` and ``epochs``: for how many epochs a pruned network is recovered, and
    then trained on."""

    source: Source
    recovered: int
    epochs: int

    @cached_property
    def task(self) -> ContestTask:
        options = tomllib.loads(STUDY.read_text(encoding="utf-8"))["task"]["options"]
        return make_task(str(self.source.root), recovery=options["recovery"])

    @property
    def arch(self) -> dict[str, Any]:
        return self.source.arch

    def recovered_model(self, width: float, seed: int) -> Any:
        if width == 1.0:
            return copied(self.source.model)
        variant = Variant("onnxruntime", "float32", width, tuple(sorted(self.arch.items())), threads=1)
        model = derive(self.task, variant, self.source.model, further=Further(0))
        self._fit(model, replace(self.task.recovery_recipe, epochs=self.recovered, seed=seed))
        return model

    def row(self, before: Any, width: float, rate: float, seed: int) -> Row:
        """``before`` is the recovered model, which stays as it is."""
        task, specs = self.task, self.task.input_specs(**self.arch)
        recovery = replace(task.recovery_recipe, seed=seed)
        recipe = replace(qat_recipe(recovery), epochs=self.epochs, learning_rate=rate * recovery.learning_rate)
        after = copied(before)
        self._fit(after, recipe)
        trained = train_quantized(before, task, specs, arch=self.arch, teacher=self.source.model, recipe=recipe)
        with tempfile.TemporaryDirectory(prefix="edgedeploy-qat-") as place:
            folder = Path(place)
            first, second = self.scores(before, folder / "before"), self.scores(after, folder / "after")
            quantized = export_quantized(trained, specs, folder / "qat.onnx")
            return Row(width, rate, seed, *first, *second, self._dice(quantized, "int8", folder / "qat"))

    def _fit(self, model: Any, recipe: TrainRecipe) -> None:
        fit(model, self.task, recipe, arch=self.arch, teacher=self.source.model)

    def scores(self, model: Any, folder: Path) -> tuple[float, float]:
        folder.mkdir()
        reference = export_reference(model, self.task.input_specs(**self.arch), folder / "reference.onnx")
        return self._dice(reference, "float32", folder / "float32"), self._dice(reference, "int8", folder / "int8")

    def _dice(self, reference: Reference, precision: str, folder: Path) -> float:
        target = OnnxRuntimeTarget()
        asked = BuildRequest(
            reference.path,
            reference.inputs,
            reference.outputs,
            precision,
            lambda: iter(self.source.calibration()),
            quantized=reference.quantized,
        )
        artifact = target.build(asked, folder)
        session = open_session(target.name, folder, artifact.entry, dict(artifact.settings), 1)
        found = []
        for case in (case for split in SPLITS for case in self.task.cases(split)):
            _, truth = self.task.load(case)
            answer = self.task.answer(session.run(self.task.inputs(case, **self.arch)), truth.shape)
            found.append(mean_dice(answer, truth, self.task.classes))
        return fmean(value for value in found if value is not None)


def rows(lab: Lab, widths: Sequence[float], seeds: int, kept: Path) -> Iterator[Row]:
    known: dict[str, Any] = read_json(kept) if kept.is_file() else {}
    for seed, width in itertools.product(range(seeds), widths):
        recovered: Any = None
        for rate in RATES:
            key = f"{lab.recovered}+{lab.epochs} epochs, width {width:g}, rate {rate:g}, seed {seed}"
            if key not in known:
                say(key)
                recovered = recovered or lab.recovered_model(width, seed)
                known[key] = asdict(lab.row(recovered, width, rate, seed))
                write_json(kept, known)
            yield Row(**known[key])


def table(found: Sequence[Row]) -> str:
    lines = [
        "| width | learning rate | seeds | Dice, float | lost by calibration | gained by qat | of it by training on |"
        " of it by quantizers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for width, rate in dict.fromkeys((row.width, row.rate) for row in found):
        of = [row for row in found if (row.width, row.rate) == (width, rate)]
        lines.append(
            f"| {width:g} | {rate:g} | {len(of)} | {fmean(row.float_before for row in of):.3f} |"
            f" {mean_of([row.rounding for row in of])} | {mean_of([row.gain for row in of])} |"
            f" {mean_of([row.training_on for row in of])} | {mean_of([row.quantizers for row in of])} |"
        )
    return "\n".join(lines) + "\n"


def mean_of(values: Sequence[float]) -> str:
    error = f" +- {stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{fmean(values):+.4f}{error}"


def page(found: Sequence[Row], lab: Lab, told: Mapping[str, Any], load: str) -> str:
    return "\n".join(
        (
            "# int8 by training after pruning",
            "",
            f"Made by `scripts/bench qat` on {utc_now()[:10]}; do not edit by hand. Machine: {machine()};",
            f"load {load}.",
            "",
            f"The network of [the contest](contest.md) ({told['parameters']:,} parameters) is pruned to a width, recovered",
            f'for {lab.recovered} epochs and then trained on for {lab.epochs} by the recipe of `training = "qat"`, with',
            "quantizers and without. The whole width is the checkpoint. What has no quantizers is calibrated (ONNX Runtime,",
            "10 images). Dice is the mean over 40 selection and 40 confirmation cases; differences are of pairs with the",
            "same seed, with their standard error. The learning rate is a share of that of recovery; 0.1 is that of",
            '`training = "qat"`.',
            "",
            table(found),
        )
    )


def parser_on_checkpoint(name: str, text: str | None, widths: Sequence[float], page: Path) -> argparse.ArgumentParser:
    """Of a benchmark that prunes the contest's checkpoint to ``widths``, and writes ``page``."""
    parser = parser_of(name, text)
    of_data = "the data set's folder, with images/, masks/ and test/ (EDGEDEPLOY_SHARED's)"
    parser.add_argument("--data", type=Path, default=shared_images(), help=of_data)
    parser.add_argument("--out", type=Path, default=Path("studies/contest"), help="(studies/contest)")
    of_width = f"(may be repeated; {', '.join(f'{width:g}' for width in widths)})"
    parser.add_argument("--width", type=float, action="append", help=of_width)
    to_write = f"write the page, to docs/reference/{page.name} unless FILE says where"
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=page, help=to_write)
    return parser


def source_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Source:
    if given.data is None:
        parser.error("--data is missing: name the folder of usgra-seg that holds images/ and masks/")
    return Source(given.data.resolve(), given.out.resolve())


def main(argv: Sequence[str]) -> int:
    parser = parser_on_checkpoint("qat", __doc__, WIDTHS, PAGE)
    parser.add_argument("--seeds", type=int, default=3, help="of recovery and of training (3)")
    parser.add_argument("--recovered", type=int, default=26, help="epochs of recovery after pruning (26)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training on (4)")
    given = parser.parse_args(argv)
    source = source_of(parser, given)
    load_before = os.getloadavg()[0]
    try:
        train_once(source)
        lab = Lab(source, given.recovered, given.epochs)
        found = list(rows(lab, given.width or WIDTHS, given.seeds, source.folder / "qat.json"))
    except EdgeDeployError as exc:
        parser.exit(exc.exit_code, f"{exc}\n")
    load = f"{load_before:.1f} at first, {os.getloadavg()[0]:.1f} at last"
    sys.stdout.write(table(found))
    if given.write:
        write_atomic(given.write, page(found, lab, source.told, load).encode())
    return 0

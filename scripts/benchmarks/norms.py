"""What it changes to measure the batch norms of a recovered network anew: Dice in float and in calibrated int8.

Training leaves each batch norm with an exponential average over the last batches of its run, of weights that still moved.
Here the network of `scripts/bench contest` is pruned and recovered, as on the rungs of a search, and of each network the
statistics of its norms are taken as trained, and as measured anew over batches of the train split: as many as a network
without training gets, those of one epoch, those of four. --out is the contest's folder; a checkpoint that is missing there
is trained first.

Dice is the mean of nerve and vessel over the contest's 40 selection and 40 confirmation cases together; differences are of
the same network, with their standard error over networks. What was found is kept in --out, so that a run that was cut off
goes on.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from benchmarks import PAGES
from benchmarks.contest_kit.checkpoint import train_once
from benchmarks.qat import Lab, mean_of, parser_on_checkpoint, source_of
from benchmarks.shared.host import machine
from benchmarks.shared.sources import say
from edgedeploy.compress.model import RECALIBRATION_BATCHES
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.errors import EdgeDeployError
from edgedeploy.files import read_json, write_atomic, write_json
from edgedeploy.reference.copies import copied
from edgedeploy.study.store import utc_now

EXTRAS: Final = ("study",)

PAGE: Final = PAGES / "norms.md"
WIDTHS: Final = (0.3, 0.5)
EPOCHS: Final = (4, 12)
AS_TRAINED: Final = "as trained"
FEW: Final = f"{RECALIBRATION_BATCHES} batches"
WAYS: Final = (AS_TRAINED, FEW, "1 epoch", "4 epochs")


@dataclass(frozen=True)
class Row:
    """Dice in float and in calibrated int8 of one recovered network, by where the statistics of its norms are from."""

    width: float
    epochs: int
    seed: int
    scores: Mapping[str, tuple[float, ...]]

    def change(self, way: str, precision: int) -> float:
        """Over the network as trained; ``precision`` is 0 for float, 1 for int8."""
        return self.scores[way][precision] - self.scores[AS_TRAINED][precision]

    def lost(self, way: str) -> float:
        """By calibration."""
        return self.scores[way][0] - self.scores[way][1]


def ways(lab: Lab) -> dict[str, int]:
    """How many batches the statistics are measured over."""
    epoch = -(-len(lab.task.cases("train")) // lab.task.recovery_recipe.batch_size)
    return dict(zip(WAYS, (0, RECALIBRATION_BATCHES, epoch, 4 * epoch), strict=True))


def measured(lab: Lab, width: float, seed: int) -> dict[str, tuple[float, float]]:
    trained = lab.recovered_model(width, seed)
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgedeploy-norms-") as place:
        for way, batches in ways(lab).items():
            model = recalibrate(copied(trained), lab.task, lab.arch, batches, seed)
            found[way] = lab.scores(model, Path(place) / way)
    return found


def rows(labs: Sequence[Lab], widths: Sequence[float], seeds: int, kept: Path) -> Iterator[Row]:
    known: dict[str, Any] = read_json(kept) if kept.is_file() else {}
    for seed, width, lab in itertools.product(range(seeds), widths, labs):
        key = f"{lab.recovered} epochs, width {width:g}, seed {seed}"
        if key not in known:
            say(key)
            known[key] = measured(lab, width, seed)
            write_json(kept, known)
        yield Row(width, lab.recovered, seed, {way: tuple(known[key][way]) for way in WAYS})


def table(found: Sequence[Row]) -> str:
    lines = [
        "| width | epochs | networks | norms | Dice, float | Dice, int8 | float, over as trained | int8, over as trained |"
        " worst of these in int8 | lost by calibration | most lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {
        (f"{width:g}", str(epochs)): [row for row in found if (row.width, row.epochs) == (width, epochs)]
        for width, epochs in sorted({(row.width, row.epochs) for row in found})
    }
    for (width, epochs), of in {**groups, ("all", "all"): list(found)}.items():
        lines += (f"| {width} | {epochs} | {len(of)} | {_cells(of, way)} |" for way in WAYS)
    return "\n".join(lines) + "\n"


def _cells(of: Sequence[Row], way: str) -> str:
    lost = [row.lost(way) for row in of]
    dice = [f"{fmean(row.scores[way][precision] for row in of):.4f}" for precision in (0, 1)]
    changes = [[row.change(way, precision) for row in of] for precision in (0, 1)]
    over = ["", "", ""] if way == AS_TRAINED else [*map(mean_of, changes), f"{min(changes[1]):+.4f}"]
    return " | ".join((way, *dice, *over, mean_of(lost), f"{max(lost):+.4f}"))


def page(found: Sequence[Row], told: Mapping[str, Any], load: str) -> str:
    return "\n".join(
        (
            "# Batch norms measured anew after a recovery",
            "",
            f"Made by `scripts/bench norms` on {utc_now()[:10]}; do not edit by hand. Machine: {machine()};",
            f"load {load}.",
            "",
            f"The network of [the contest](contest.md) ({told['parameters']:,} parameters) is pruned to a width and",
            "recovered for so many epochs. Training leaves its batch norms with an exponential average over its last",
            "batches (as trained); instead they are measured anew over training batches of 4 images: as many as a",
            f"network without training gets ({RECALIBRATION_BATCHES}), one epoch, four. int8 is calibrated (ONNX Runtime,",
            "10 images). Dice is the mean over 40 selection and 40 confirmation cases; differences are of the same",
            "network, with their standard error over networks.",
            "",
            table(found),
        )
    )


def main(argv: Sequence[str]) -> int:
    parser = parser_on_checkpoint("norms", __doc__, WIDTHS, PAGE)
    text = f"of recovery (may be repeated; {', '.join(map(str, EPOCHS))})"
    parser.add_argument("--epochs", type=int, action="append", help=text)
    parser.add_argument("--seeds", type=int, default=3, help="of recovery (3)")
    given = parser.parse_args(argv)
    source = source_of(parser, given)
    load_before = os.getloadavg()[0]
    try:
        train_once(source)
        labs = [Lab(source, epochs, 0) for epochs in given.epochs or EPOCHS]
        found = list(rows(labs, given.width or WIDTHS, given.seeds, source.folder / "norms.json"))
    except EdgeDeployError as exc:
        parser.exit(exc.exit_code, f"{exc}\n")
    load = f"{load_before:.1f} at first, {os.getloadavg()[0]:.1f} at last"
    sys.stdout.write(table(found))
    if given.write:
        write_atomic(given.write, page(found, source.told, load).encode())
    return 0

"""Classification of images: a folder per class, or a CSV table with groups and splits.

    ROOT/CLASS/*.png                     splits are drawn
    ROOT/SPLIT/CLASS/*.png               train, val, test as they are; what is not there is drawn from train
    ROOT/labels.csv                      image,label[,group][,split] (option ``table``); images below ROOT

A picture that is there twice counts as one group. Accuracy, log loss and Brier's score belong to cases; AUROC, balanced
accuracy, F1, the calibration error and the sensitivity at a fixed specificity to the split, as scikit-learn defines them.
Sensitivity and specificity at the threshold that the float baseline sets belong to cases again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, MeasurementError, SpecError, nearest
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.pipeline.run import FrameError, finish
from edgedeploy.runtime.pipeline.steps import AgainstZero, OutputStep, Softmax, Steps, Take
from edgedeploy.tasks.calibration import brier, calibration_error, chance_calibration_error, threshold_for
from edgedeploy.tasks.images.files import image_files
from edgedeploy.tasks.network import Maker
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.pictures.base import PictureTask
from edgedeploy.tasks.pictures.entries import Entry, data_folder
from edgedeploy.tasks.pictures.options import PictureOptions
from edgedeploy.tasks.pictures.table import inside, read_table
from edgedeploy.tasks.splitting import SPLIT_WORDS

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MAX_CLASSES: Final = 1000
AT_THRESHOLD: Final = ("sensitivity_fixed", "specificity_fixed")
"""Metrics of cases at the threshold that the float baseline sets."""

_LEAST_CHANCE: Final = 1e-7
_RIGHT, _WRONG = (90, 180, 90), (200, 70, 50)


@dataclass(frozen=True)
class ClassificationOptions(PictureOptions):
    """How the classes are known and scored.

    - ``table``: a CSV file below ``root`` in place of a folder per class.
    - ``positive``: the class that is to be found, for F1 and for the sensitivity at ``specificity``.
    - ``specificity``: a share between 0 and 1.
    - ``calibration_bins``: bins of equal width for the calibration error; few cases want few bins.
    - ``balanced``: the loss weighs classes by how rare they are.
    """

    table: str = ""
    positive: str = ""
    specificity: float = 0.9
    calibration_bins: int = 10
    balanced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.specificity < 1:
            raise ValueError(f"specificity is a share between 0 and 1, but got {self.specificity}")
        at_least(self, calibration_bins=1)


class Classification(PictureTask):
    """See :class:`edgedeploy.Task`, ``Trainable``, ``ScoresSplit``, ``RanksCases``, ``FixedOnBaseline``, ``Grouped`` and
    ``Pictured``."""

    def __init__(self, options: ClassificationOptions, base: Path, maker: Maker | None = None) -> None:
        root = data_folder(options.root, base, "a folder per class, or the table and its images")
        entries = _from_table(root, options.table) if options.table else _from_folders(root)
        self.classes = tuple(sorted({str(entry.label) for entry in entries}))
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            found = f"{len(self.classes)} ({', '.join(self.classes[:5])})"
            raise DataError(f"classes in {root}", found, f"2 to {MAX_CLASSES} are taken")
        if options.positive and options.positive not in self.classes:
            found = f"there is no class {options.positive!r}"
            raise SpecError("task.options.positive", found, nearest(options.positive, self.classes))
        super().__init__("classification", options, root, entries, maker)
        self._options = options
        self._seen: dict[str, tuple[Mapping[str, Array], Floats]] = {}
        self._positive = self.classes.index(options.positive) if options.positive else None
        self._threshold: float | None = None
        self.metrics: Mapping[str, MetricInfo] = _case_metrics(options)
        self.split_metrics = _split_metrics(options)

    def own_network(self, **arch: Scalar) -> Any:
        from monai.networks.nets import ResNet

        widths = [self.options.base_channels * factor for factor in (1, 2, 4, 8)]
        return ResNet(
            block="basic",
            layers=[1, 1, 1, 1],
            block_inplanes=widths,
            spatial_dims=2,
            n_input_channels=self.options.channels,
            num_classes=len(self.classes),
            conv1_t_size=3,
            conv1_t_stride=1,
        )

    def network_offer(self) -> dict[str, Any]:
        return {**super().network_offer(), "classes": len(self.classes), "num_classes": len(self.classes)}

    def target_of(self, case: Case, side: int) -> int:
        return self.truth(case)

    def truth(self, case: Case) -> int:
        return self.classes.index(str(self._entries[case].label))

    def loss(self, outputs: Any, target: Any) -> Any:
        import torch
        import torch.nn.functional as F  # noqa: N812

        logits = self._two_columns(outputs)
        weight = torch.tensor(self._weights, dtype=logits.dtype) if self._options.balanced else None
        return F.cross_entropy(logits, target, weight=weight)

    @property
    def _weights(self) -> list[float]:
        found = [self.truth(case) for case in self.cases("train")]
        counts = np.bincount(found, minlength=len(self.classes))
        return [float(len(found) / (len(self.classes) * count)) for count in counts]

    def _two_columns(self, logits: Any) -> Any:
        """A single output of two classes is the logit of ``positive``."""
        import torch

        if not self._alone(logits.shape[1]):
            return logits
        pair = (torch.zeros_like(logits), logits)
        return torch.cat(pair if self._options.positive == self.classes[1] else pair[::-1], dim=1)

    def _alone(self, columns: int) -> bool:
        """Whether the output is a single logit of two classes. Raises ``SpecError`` for other columns than classes."""
        if columns == len(self.classes):
            return False
        if columns != 1 or len(self.classes) != 2 or not self._options.positive:
            found = f"its output has {columns} columns"
            remedy = "One per class; a single one only for two classes with `positive` named in [task.options]"
            raise SpecError(f"a network for {len(self.classes)} classes", found, remedy)
        return True

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The result is the chance of each class in the order of ``classes``, (classes,). Raises ``SpecError`` for a network
        of other outputs."""
        return Steps(self.input_steps(**arch), self._chance_steps(outputs[0].name, outputs[0].shape[-1]))

    def _chance_steps(self, output: str, columns: int) -> tuple[OutputStep, ...]:
        if not self._alone(columns):
            return Take(output), Softmax()
        zero = AgainstZero("before" if self._options.positive == self.classes[1] else "after")
        return Take(output), zero, Softmax()

    def chances(self, outputs: Mapping[str, Array]) -> Floats:
        """Softmax of the logits (1, classes) that a board sent; shape (classes,). Raises ``MeasurementError``."""
        name, values = next(iter(outputs.items()))
        logits = np.asarray(values, np.float64).reshape(1, -1)
        try:
            found = finish(Steps((), self._chance_steps(name, logits.shape[1])), {name: logits}, None)
        except FrameError as exc:
            raise MeasurementError("finite logits", str(exc), "Choose a wider precision") from None
        return np.asarray(found, np.float64)

    def _remembered(self, case: Case, outputs: Mapping[str, Array]) -> Floats:
        """The chances of the outputs that were seen last for a case: a split is scored many times."""
        seen = self._seen.get(case.id)
        if seen is None or seen[0] is not outputs:
            seen = self._seen[case.id] = (outputs, self.chances(outputs))
        return seen[1]

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        chances, truth = self.chances(outputs), self.truth(case)
        right = float(int(chances.argmax()) == truth)
        found: dict[str, float | None] = {
            "accuracy": right,
            "log_loss": float(-np.log(max(chances[truth], _LEAST_CHANCE))),
            "brier": brier(chances, truth),
        }
        return {**found, **self._at_threshold(chances, truth)}

    def _at_threshold(self, chances: Floats, truth: int) -> dict[str, float | None]:
        """Of a positive case whether it is found, of a negative one whether it is let pass; the other is undefined."""
        if self._positive is None:
            return {}
        found: dict[str, float | None] = dict.fromkeys(AT_THRESHOLD)
        if self._threshold is not None:
            flagged = bool(chances[self._positive] >= self._threshold)
            positive = truth == self._positive
            found[AT_THRESHOLD[0 if positive else 1]] = float(flagged == positive)
        return found

    def fix(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float]:
        """The threshold on the chance of ``positive`` that keeps the ``specificity`` on these cases."""
        if self._positive is None:
            return {}
        chances = np.array([self.chances(found)[self._positive] for found in outputs])
        sides = np.array([self.truth(case) == self._positive for case in cases])
        if sides.all():
            return {}
        self._threshold = threshold_for(self._options.specificity, sides, chances)
        return {f"threshold for {self._options.positive}": self._threshold}

    def ranked(
        self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]
    ) -> dict[str, tuple[list[bool], list[float]]]:
        """Of ``positive``; of two classes the second where none is named, whose AUROC is that of the first."""
        label = self._positive if self._positive is not None else (1 if len(self.classes) == 2 else None)
        if label is None:
            return {}
        sides = [self.truth(case) == label for case in cases]
        scores = [float(self._remembered(case, found)[label]) for case, found in zip(cases, outputs, strict=True)]
        return {"auroc": (sides, scores)}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
        truth = np.array([self.truth(case) for case in cases])
        chances = np.stack([self._remembered(case, found) for case, found in zip(cases, outputs, strict=True)])
        bins, confidences = self._options.calibration_bins, chances.max(axis=1)
        return {
            **split_scores(truth, chances, self._positive, self._options.specificity),
            "ece": calibration_error(confidences, chances.argmax(axis=1) == truth, bins),
            "ece_by_chance": chance_calibration_error(confidences, bins),
        }

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The case above a bar: its class, or the answer in green where it is right and in red where it is not."""
        from PIL import Image, ImageDraw

        image = self.image_of(case)
        pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        canvas = Image.fromarray(
            np.repeat(pixels[0][..., None], 3, 2) if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        )
        scale = max(1, -(-160 // max(canvas.size)))
        canvas = canvas.resize((canvas.width * scale, canvas.height * scale), Image.Resampling.NEAREST)
        page = Image.new("RGB", (canvas.width, canvas.height + 16), (40, 40, 40))
        page.paste(canvas, (0, 0))
        text, colour = self.classes[self.truth(case)], (230, 230, 230)
        if outputs is not None:
            chances = self.chances(outputs)
            answer = int(chances.argmax())
            text, colour = (
                f"{self.classes[answer]} {chances[answer]:.2f}",
                _RIGHT if answer == self.truth(case) else _WRONG,
            )
        ImageDraw.Draw(page).text((3, canvas.height + 2), text, fill=colour)
        return np.asarray(page)


def split_scores(truth: Labels, chances: Floats, positive: int | None, specificity: float) -> dict[str, float | None]:
    """``truth`` (cases,) are class numbers, ``chances`` (cases, classes). A split is scored a thousand times for its draws,
    so these are scikit-learn's definitions without its checks of each argument, which took 95 % of the time; a test holds
    them to its functions.

    Rules: AUROC is of ``positive``, or the mean over the classes, each against the rest; a class that no case has, or that
    all have, is left out of the mean, and without any the AUROC is undefined. F1 is of ``positive``, or the mean over the
    classes in truth or answers; it is undefined where ``positive`` is in neither. The sensitivity is the highest among
    thresholds that keep the specificity, on these very cases; it is undefined without cases of both kinds.
    """
    count = chances.shape[1]
    answers = chances.argmax(axis=1)
    table = np.bincount(truth * count + answers, minlength=count * count).reshape(count, count)
    found_of, hits, asked_of = table.sum(axis=0), table.diagonal(), table.sum(axis=1)
    there = asked_of > 0
    two_sided = np.flatnonzero(there & (asked_of < truth.size))
    asked = two_sided if positive is None else two_sided[two_sided == positive]
    areas = [auroc(truth == label, chances[:, label]) for label in asked]
    with np.errstate(invalid="ignore"):
        f1 = 2 * hits / (found_of + asked_of)
    found: dict[str, float | None] = {
        "auroc": float(np.mean(areas)) if areas else None,
        "balanced_accuracy": float(np.mean(hits[there] / asked_of[there])),
    }
    if positive is None:
        return {**found, "f1": float(np.nanmean(f1))}
    found["f1"] = None if np.isnan(f1[positive]) else float(f1[positive])
    sides = truth == positive
    found["sensitivity"] = sensitivity(sides, chances[:, positive], specificity) if len(asked) else None
    return found


def auroc(sides: npt.NDArray[np.bool_], values: Floats) -> float:
    """The chance that a positive case has the higher value (Mann-Whitney's U over all pairs), ties by half."""
    from scipy.stats import rankdata

    positives = int(sides.sum())
    above = float(rankdata(values)[sides].sum()) - positives * (positives + 1) / 2
    return above / (positives * (sides.size - positives))


def sensitivity(sides: npt.NDArray[np.bool_], values: Floats, specificity: float) -> float:
    """The largest share of positives at or above a threshold that at least ``specificity`` of the negatives are below."""
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.diff(values[order]) != 0, True)
    hits, false_alarms = np.cumsum(sides[order])[ends], np.cumsum(~sides[order])[ends]
    kept = hits[false_alarms <= (1 - specificity) * (~sides).sum() + 1e-9]
    return float(kept.max(initial=0) / sides.sum())


def _case_metrics(options: ClassificationOptions) -> dict[str, MetricInfo]:
    table = {
        "accuracy": MetricInfo("maximize", "1", "share of cases whose class was found", bound=1.0, yes_or_no=True),
        "log_loss": MetricInfo(
            "minimize", "1", "mean negative log of the chance given to the true class", bound=0.0, yes_or_no=False
        ),
        "brier": MetricInfo(
            "minimize", "1", "Brier's score: squared distance of the chances from the truth", bound=0.0, yes_or_no=False
        ),
    }
    if options.positive:
        at = f"the threshold at which the float baseline has a specificity of {options.specificity:g} on the selection split"
        table[AT_THRESHOLD[0]] = MetricInfo(
            "maximize", "1", f"sensitivity for {options.positive} at {at}", bound=1.0, yes_or_no=True
        )
        table[AT_THRESHOLD[1]] = MetricInfo(
            "maximize", "1", f"specificity for {options.positive} at {at}", bound=1.0, yes_or_no=True
        )
    return table


def _split_metrics(options: ClassificationOptions) -> dict[str, MetricInfo]:
    of = f"of {options.positive} " if options.positive else ""
    mean = "" if options.positive else ", mean over the classes"
    table = {
        "auroc": MetricInfo("maximize", "1", f"area under the ROC curve {of}against the rest{mean}", bound=1.0),
        "balanced_accuracy": MetricInfo(
            "maximize", "1", "mean over the classes of the share that was found", bound=1.0
        ),
        "f1": MetricInfo("maximize", "1", f"F1 {of}{mean}".replace(" ,", ",").strip(), bound=1.0),
    }
    bins = f"{options.calibration_bins} bins"
    ece = f"expected calibration error, {bins}; read it beside ece_by_chance"
    table["ece"] = MetricInfo("minimize", "1", ece, bound=0.0)
    table["ece_by_chance"] = MetricInfo(
        "minimize", "1", f"ece of a model that is calibrated perfectly, {bins}, so few cases", bound=0.0
    )
    if options.positive:
        text = f"sensitivity for {options.positive} at a specificity of {options.specificity:g}, on the split itself"
        table["sensitivity"] = MetricInfo("maximize", "1", text, bound=1.0)
    return table


def _from_table(root: Path, name: str) -> list[Entry]:
    table = inside(root, name, "task.options.table")
    entries: dict[str, Entry] = {}
    for line, row in read_table(table, ("image", "label"), ("group", "split")):
        asked = f"table {table}, line {line}"
        image, word = row["image"], row.get("split", "")
        if word and word not in SPLIT_WORDS:
            raise DataError(asked, f"split {word!r}", f"Known: {', '.join(SPLIT_WORDS)}; empty to draw one")
        if image in entries:
            raise DataError(asked, f"image {image!r} stands twice", "Keep one row per image")
        path, split = inside(root, image, asked), SPLIT_WORDS[word] if word else None
        entries[image] = Entry(image, path, row["label"], group=row.get("group") or None, split=split)
    return list(entries.values())


def _from_folders(root: Path) -> list[Entry]:
    folders = _folders(root)
    if not folders:
        raise DataError(f"classes in {root}", "the folder holds no folders", "One per class, or name a `table`")
    if all(folder.name in SPLIT_WORDS for folder in folders):
        return [entry for folder in folders for entry in _classes(root, folder, folder.name)]
    return _classes(root, root, None)


def _classes(root: Path, folder: Path, word: str | None) -> list[Entry]:
    split = SPLIT_WORDS[word] if word else None
    found = [
        Entry(path.relative_to(root).as_posix(), path, place.name, split=split)
        for place in _folders(folder)
        for path in image_files(place)
    ]
    if not found:
        raise DataError(f"images in {folder}", "its folders hold none", "Put the images of each class into its folder")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

"""Rows of what is shipped over a hospital's link: a U-Net of ultrasound in a twelfth of its bytes, and its next release.

With EDGEDEPLOY_SHARED the images are real (usgra-seg, at 128 x 128) and the U-Net has 948,243 parameters; else both are
those of the embedded study. It is trained once, and kept in EDGEDEPLOY_CACHE. Dice is that of the network with the decoded
weights, image by image against the float network, over 40 selection and 40 confirmation images; no image of these was seen
by training or by the packer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.contest_kit.checkpoint import Source, train_once
from benchmarks.contest_kit.task import DEFAULTS, ContestTask
from benchmarks.shared.rows import Asked, Row
from benchmarks.shared.sources import trained_unet
from edgedeploy.compress.codec.coded import digest_of_weights
from edgedeploy.compress.codec.container import Packed, from_bytes, to_bytes
from edgedeploy.compress.codec.delta import update_bytes, updated
from edgedeploy.compress.codec.folding import folded
from edgedeploy.compress.codec.method import BATCHES, decoded, float32_bytes, shipped
from edgedeploy.compress.codec.shipping import following, priced
from edgedeploy.compress.codec.zstd import zstd_packed
from edgedeploy.compress.recalibration import training_batches
from edgedeploy.compress.shaped import one_case
from edgedeploy.compress.training import fit
from edgedeploy.records.storage import storage_of
from edgedeploy.reference.calling import named_tensors
from edgedeploy.reference.copies import copied
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound

RATIO: Final = 12.0
MEAN: Final = 0.005
WORST: Final = -0.10
OTHERS: Final = ("int8-zstd", "uniform:0.3", "uniform:0.6", "hyper:4", "uniform:16x")
RELEASE: Final = {"epochs": 1, "learning_rate": 3e-4, "distill_weight": 0.0, "warmup_epochs": 0.1}
"""The next release: an epoch of further training on the same images."""


class Images(Source):
    """The contest's U-Net at 128 x 128, trained for a third of its epochs."""

    @cached_property
    def task(self) -> ContestTask:
        recipe = replace(DEFAULTS.baseline, epochs=50, early_epochs=36)
        return ContestTask(replace(DEFAULTS, root=str(self.root), resolutions=(128, 96), baseline=recipe), Path.cwd())


@dataclass(frozen=True)
class Subject:
    """A trained network, its task, and what each image is worth to the float network."""

    name: str
    task: Any
    arch: Mapping[str, Any]
    model: Any

    @cached_property
    def float_dice(self) -> dict[str, Any]:
        return self.dice(self.model)

    @cached_property
    def float32_bytes(self) -> int:
        return float32_bytes(self.model)

    @cached_property
    def inputs(self) -> list[Any]:
        return [batch.inputs for batch in training_batches(self.task, self.arch, BATCHES, 0)]

    def dice(self, model: Any) -> dict[str, Any]:
        """``dice_mean`` of each image by split; NaN where the truth holds no class."""
        import torch

        found = {}
        with torch.no_grad():
            for split in ("selection", "confirmation"):
                values = []
                for case in self.task.cases(split):
                    feed = self.task.inputs(case, **self.arch)
                    answer = model(*(torch.from_numpy(value) for value in feed.values()))
                    outputs = {name: value.numpy() for name, value in named_tensors(answer).items()}
                    values.append(self.task.evaluate(outputs, case)["dice_mean"])
                found[split] = np.array(values, float)
        return found

    def lost(self, model: Any, than: Mapping[str, Any]) -> Lost:
        now = self.dice(model)
        gaps = {split: now[split] - than[split] for split in now}
        means = {split: float(np.nanmean(gap)) for split, gap in gaps.items()}
        every = np.concatenate([*gaps.values()])
        spread = float(np.nanstd(every) / np.sqrt(np.isfinite(every).sum()))
        return Lost(means["selection"], means["confirmation"], float(np.nanmin(every)), spread)


@dataclass(frozen=True)
class Lost:
    """Mean differences of Dice by split, the worst image's, and the standard error of the mean over both splits."""

    selection: float
    confirmation: float
    worst: float
    error: float

    @property
    def within(self) -> bool:
        return min(self.selection, self.confirmation) >= -MEAN and self.worst >= WORST

    def __str__(self) -> str:
        return (
            f"Dice {self.selection:+.4f} selection, {self.confirmation:+.4f} confirmation (standard error "
            f"{self.error:.4f}), worst image {self.worst:+.3f}"
        )


@cache
def subject() -> Subject:
    import torch

    torch.set_num_threads(1)
    home = Path(os.environ.get("EDGEDEPLOY_CACHE") or Path.home() / ".cache" / "edgedeploy")
    shared = os.environ.get("EDGEDEPLOY_SHARED")
    if shared:
        source = Images(Path(shared) / "data/usgra-seg/dataset", home / "clinic-unet")
        train_once(source)
        return Subject("real ultrasound", source.task, source.arch, source.model)
    task = SyntheticUltrasound()
    arch = {name: values[0] for name, values in task.architecture.items()}
    return Subject("made-up ultrasound", task, arch, trained_unet(home / "clinic-made-up").eval())


def packed_twelve_times(asked: Asked) -> Row:
    """Packed after training, without any further training; beside it the simplest way that was known to be honest."""
    one = subject()
    started = time.process_time()
    data, arrived = shipped(one.model, one.task, one.arch, storage_of(f"uniform:{RATIO:g}x"))
    packing_s = time.process_time() - started
    lost = one.lost(arrived, one.float_dice)
    ratio = one.float32_bytes / len(data)
    dice = {split: float(np.nanmean(values)) for split, values in one.float_dice.items()}
    plain = _beside(one, "uniform:0.3", coder="zstd")
    found = (
        f"{ratio:.2f} x ({len(data) / 1e3:.1f} of {one.float32_bytes / 1e3:.1f} kB), {lost}; float Dice "
        f"{dice['selection']:.3f} and {dice['confirmation']:.3f}; packed in {packing_s:.0f} s, decoded in "
        f"{_decoding_s(data):.2f} s of CPU; no further training. Baseline, 0.3 deviations + zstd: {plain}"
    )
    bar = f">= {RATIO:g} x of float32, mean Dice >= -{MEAN} on both splits, worst image >= {WORST}"
    return Row(f"U-Net packed, {one.name}", found, bar, ratio >= RATIO and lost.within)


def other_packings(asked: Asked) -> Row:
    """The other ways, for the page: no bar."""
    one = subject()
    raw = b"".join(value.numpy().tobytes() for value in one.model.state_dict().values())
    half = b"".join(value.half().numpy().tobytes() for value in one.model.state_dict().values())
    parts = [f"float32 + zstd {one.float32_bytes / len(zstd_packed(raw)):.2f} x"]
    parts += [
        f"float16 {one.float32_bytes / len(half):.2f} x",
        f"+ zstd {one.float32_bytes / len(zstd_packed(half)):.2f} x",
    ]
    parts += [f"{way}: {_beside(one, way)}" for way in OTHERS]
    return Row(f"other ways, {one.name}", "; ".join(parts))


def _beside(one: Subject, way: str, coder: str = "") -> str:
    data, arrived = shipped(one.model, one.task, one.arch, storage_of(way))
    if coder:
        data = to_bytes(replace(from_bytes(data)[0], coder=coder))  # type: ignore[arg-type]
    seconds = _decoding_s(data)
    lost = one.lost(arrived, one.float_dice)
    return f"{one.float32_bytes / len(data):.2f} x ({len(data) / 1e3:.1f} kB), {lost}, decoded in {seconds:.2f} s"


def _decoding_s(data: bytes) -> float:
    """CPU time of the quickest of five."""
    return min(_timed(lambda: from_bytes(data)) for _ in range(5))


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@dataclass(frozen=True)
class Releases:
    """A release and the next one, each as its folded network and packed: the second on the steps of the first. ``trained``
    is the next release's float network."""

    flat: Any
    old: Packed
    trained: Any
    next_flat: Any
    new: Packed


@cache
def releases(seed: int) -> Releases:
    """Of :func:`subject`, made once for all rows."""
    one = subject()
    flat = folded(one.model, one_case(one.task, one.arch))
    old, price = priced(flat, one.inputs, int(one.float32_bytes / RATIO), seed)
    trained = copied(one.model)
    fit(trained, one.task, replace(one.task.recovery_recipe, **RELEASE, seed=seed + 1), arch=one.arch)
    next_flat = folded(trained.eval(), one_case(one.task, one.arch))
    return Releases(flat, old, trained, next_flat, following(next_flat, one.inputs, old, price, seed))


def delta_update(asked: Asked) -> Row:
    """The next release: an epoch of further training. Its update beside itself, and beside zstd with the old release as a
    prefix (`zstd --patch-from`)."""
    one = subject()
    two = releases(asked.seed)
    old, new, flat, trained = two.old, two.new, two.next_flat, two.trained
    update, whole, before = update_bytes(old.decoded(), new), to_bytes(new), to_bytes(old)
    started = time.process_time()
    arrived = updated(old.decoded(), update)
    applied_s = time.process_time() - started
    equal = digest_of_weights(arrived) == digest_of_weights(new.decoded())
    lost = one.lost(decoded(flat, arrived), one.dice(trained))
    patched = len(zstd_packed(whole, before))
    raw = [b"".join(v.numpy().tobytes() for v in m.state_dict().values()) for m in (trained, one.model)]
    found = (
        f"{len(update) / 1e3:.1f} kB, {len(update) / len(whole):.0%} of the whole release of {len(whole) / 1e3:.1f} kB "
        f"({'equal in every bit' if equal else 'NOT EQUAL'}, applied in {applied_s:.2f} s of CPU); {lost} against the new "
        f"float network. zstd from the old packed file {patched / 1e3:.1f} kB, from the old float32 weights "
        f"{len(zstd_packed(*raw)) / 1e3:.1f} kB"
    )
    holds = equal and len(update) < min(len(whole), patched)
    return Row(
        f"its next release, {one.name}", found, "the release in every bit, in fewer bytes than zstd's patch", holds
    )


ROWS = (packed_twelve_times, delta_update, other_packings)

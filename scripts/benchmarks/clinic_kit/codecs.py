"""A codec in front of the model: a search over both on real ultrasound, what its pick does to the worst image, and a table
of codecs on that network."""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.shared.rows import Asked, Row

STUDY: Final = Path(__file__).with_suffix(".toml")
METRIC: Final = "dice_mean"
LEAST_RATIO: Final = 10.0
MOST_LOST: Final = 0.05
"""Of Dice, by any single image."""

DEADLINE_MS: Final = 50.0
TIMED_FRAMES: Final = 1324
"""Twice as many as a 99th percentile needs."""

BAR: Final = (
    f">= {LEAST_RATIO:g}:1, worst image >= -{MOST_LOST:g} Dice, decode + inference p99 within {DEADLINE_MS:g} ms (of one "
    "thread's processor time: the machine is shared)"
)

TABLE: Final = (
    *("jpegls", "j2k", "htj2k", "jxl", "jpegls-near2", "jpegls-near5", "jpeg-q95", "jpeg-q90", "jpeg-q80", "jpeg-q75"),
    *("jpeg-q50", "j2k-psnr45", "j2k-psnr35", "htj2k-step0.01", "htj2k-step0.02", "jxl-d1", "jxl-d4"),
)
"""Codecs of the table beside the search."""


def codec_study(asked: Asked) -> Row:
    """usgra-seg, 40 images to search on and 40 to confirm; the study is ``codecs.toml`` beside this file."""
    what = "codec x model on real ultrasound (usgra-seg), decoder inside the deadline"
    root = images_at()
    if root is None:
        return Row(what, "not run: EDGEDEPLOY_SHARED does not name a folder with data/usgra-seg", BAR, holds=False)
    import edgedeploy

    with tempfile.TemporaryDirectory(prefix="edgedeploy-codecs-") as place:
        path = Path(place) / "study.toml"
        text = STUDY.read_text(encoding="utf-8").replace("usgra-seg/dataset", str(root))
        path.write_text(text.replace("seed = 7", f"seed = {7 + asked.seed}"), encoding="utf-8")
        edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=Path(place) / "out"))
        sys.stderr.write(table_of(Path(place) / "out", root))
        return row_of(what, Path(place) / "out")


def images_at() -> Path | None:
    """The data set's folder."""
    shared = os.environ.get("EDGEDEPLOY_SHARED")
    root = Path(shared) / "data/usgra-seg/dataset" if shared else None
    return root if root is not None and (root / "images").is_dir() else None


@dataclass(frozen=True)
class Losses:
    """Of Dice, against raw images and float32 (negative: lost): the mean over images, and the worst one."""

    mean: float
    worst: float
    images: int

    @classmethod
    def between(cls, ours: Mapping[str, Any], raw: Mapping[str, Any]) -> Losses:
        found = cls.changes(ours, raw)
        return cls(statistics.fmean(found), min(found), len(found))

    @staticmethod
    def changes(ours: Mapping[str, Any], raw: Mapping[str, Any]) -> list[float]:
        """Of each image. One that is undefined on one side alone has lost all of it."""
        pairs = [(ours[case].get(METRIC), values.get(METRIC)) for case, values in raw.items()]
        return [(after or 0.0) - (before or 0.0) for after, before in pairs if after is not None or before is not None]

    def text(self) -> str:
        return f"{self.mean:+.4f} mean, {self.worst:+.3f} worst of {self.images}"


def row_of(what: str, out: Path) -> Row:
    """Of the finished study in ``out``: its own pick against raw images by the float32 model."""
    from edgedeploy.study.front import read_front
    from edgedeploy.study.store import Store

    store = Store(out)
    front = read_front(out)
    measured = {item.digest: item for item in store.measurements()}
    confirmed = {item.digest: item for item in store.confirmations()}
    raw = measured[front.reference or ""]
    if not front.decision.order:
        return Row(what, f"no pick: {front.decision.outcome}; {len(measured)} variants measured", BAR, holds=False)
    pick = measured[front.decision.order[0]]
    splits = [("selection", pick, raw), ("confirmation", confirmed.get(pick.digest), confirmed.get(raw.digest))]
    losses = {name: Losses.between(ours.cases, base.cases) for name, ours, base in splits if ours and base}
    ratio = sum(raw.images.values()) / sum(pick.images.values())
    spent_ms, stages = processor_p99_ms(store, pick)
    age_ns = pick.metrics.get("realtime_result_age_p99_ns")
    by_clock = pick.missing["realtime_result_age_p99_ns"] if age_ns is None else f"{age_ns / 1e6:.1f} ms"
    holds = (
        ratio >= LEAST_RATIO
        and len(losses) == len(splits)
        and all(found.worst >= -MOST_LOST for found in losses.values())
        and spent_ms <= DEADLINE_MS
    )
    told = "; ".join(f"{name} {found.text()}" for name, found in losses.items()) or "nothing confirmed"
    found = (
        f"pick {pick.variant.image_codec or 'no codec'} with {pick.variant.precision}: {ratio:.1f}:1, Dice {told}; p99 "
        f"{spent_ms:.1f} ms (medians: {stages}), by the clock from arrival to result {by_clock}; {len(measured)} variants, "
        f"raw float32 Dice {raw.metrics[METRIC]:.3f}, board's own decoder off by "
        f"{pick.scenarios['realtime']['coded']['largest_difference']}"
    )
    return Row(what, found, BAR, holds)


class _ProcessorClock:
    """What the process computed, whoever else did meanwhile."""

    def now_ns(self) -> int:
        return time.process_time_ns()

    def sleep_until_ns(self, when_ns: int) -> None:
        raise NotImplementedError("nothing waits here")


def processor_p99_ms(store: Any, pick: Any) -> tuple[float, str]:
    """Of decoding, the task's steps and the inference together over the images that the board got, and each one's median."""
    from edgedeploy.runtime.scenarios.frames import CodedFrames
    from edgedeploy.runtime.scenarios.stages import Pipeline
    from edgedeploy.runtime.sessions.open import import_runtime, open_session

    folder = store.artifact_folder(pick.variant.artifact_folder(pick.weight_bits.bits if pick.weight_bits else 8))
    import_runtime(pick.variant.target)
    session = open_session(pick.variant.target, folder, pick.artifact.entry, dict(pick.artifact.settings), 1)
    codec = f"-{pick.variant.image_codec}" if pick.variant.image_codec else ""
    (path,) = (store.root / "inputs").glob(f"selection-{'[0-9a-f]' * 16}{codec}-frames-*.npz")
    pipeline = Pipeline(session, [{}], ["decode", "resize"], (1, 1), _ProcessorClock(), CodedFrames(path))
    for number in range(TIMED_FRAMES + 20):
        pipeline.process(number)
    stages = {name: times[20:] for name, times in pipeline.times_ns.items()}
    frames = sorted(map(sum, zip(*stages.values(), strict=True)))
    medians = ", ".join(f"{name} {statistics.median(times) / 1e6:.2f}" for name, times in stages.items())
    return frames[math.ceil(0.99 * len(frames)) - 1] / 1e6, medians


def table_of(out: Path, root: Path, codecs: Sequence[str] = TABLE) -> str:
    """Markdown: each codec on all images of both splits, by the study's float32 artifact on this host."""
    from edgedeploy.runtime.sessions.open import import_runtime, open_session
    from edgedeploy.study.front import read_front
    from edgedeploy.study.store import Store
    from edgedeploy.tasks.load import load_task

    store = Store(out)
    raw = store.measurement(read_front(out).reference or "")
    assert raw is not None
    options = {"root": str(root), "selection_cases": 40, "resolutions": [96], "base_channels": 16, "depth": 3}
    task: Any = load_task({"kind": "segmentation-folder", "options": options}, out)
    folder = store.artifact_folder(raw.variant.artifact_folder())
    import_runtime("onnxruntime")
    session = open_session("onnxruntime", folder, raw.artifact.entry, dict(raw.artifact.settings), 1)
    steps = task.pipeline(raw.artifact.outputs, **raw.variant.arch_kwargs)
    cases = [case for split in ("selection", "confirmation") for case in task.cases(split)]
    frames = {case: task.frame(case) for case in cases}
    before = {case.id: _dice(task, session, steps, case, frames[case]) for case in cases}
    lines = [f"| codec | ratio | encode ms | decode ms | PSNR least | Dice mean | worst | lose > {MOST_LOST:g} |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [_line(name, task, session, steps, frames, before) for name in codecs]
    return "\n".join([*lines, ""])


def _dice(task: Any, session: Any, steps: Any, case: Any, frame: Any) -> Mapping[str, float | None]:
    """The task's Dice alone, by its rule (a class that neither has is undefined): its distances take most of its time."""
    from edgedeploy.runtime.pipeline.run import prepare
    from edgedeploy.tasks.segmentation.metrics import mean_of_defined

    _, truth = task.load(case)
    answer = task.answer(session.run(prepare(steps, frame)[0]), truth.shape)
    found = []
    for label in task.classes.values():
        ours, theirs = answer == label, truth == label
        both = int(ours.sum()) + int(theirs.sum())
        found.append(2 * int((ours & theirs).sum()) / both if both else None)
    return {METRIC: mean_of_defined(found)}


def _line(name: str, task: Any, session: Any, steps: Any, frames: Mapping[Any, Any], before: Mapping[str, Any]) -> str:
    """One codec; times are processor time of one thread, medians over images."""
    from edgedeploy.runtime.pipeline.codecs import CodecError, codec_of, decode, encode
    from edgedeploy.runtime.pipeline.coded_check import checked

    codec, pixels, size = codec_of(name), 0, 0
    encode_ms, decode_ms, psnr_db = [], [], math.inf
    after = {}
    for case, frame in frames.items():
        try:
            coded = checked(codec, frame)
        except CodecError as exc:
            return f"| {name} | refused: {exc} | | | | | | |"
        started = time.process_time_ns()
        encode(codec, frame)
        between = time.process_time_ns()
        decode(codec, coded.data, frame.shape)
        ended = time.process_time_ns()
        encode_ms.append((between - started) / 1e6)
        decode_ms.append((ended - between) / 1e6)
        pixels, size = pixels + frame.nbytes, size + len(coded.data)
        psnr_db = min(psnr_db, coded.psnr_db)
        after[case.id] = _dice(task, session, steps, case, coded.image)
    losses = Losses.between(after, before)
    lost = sum(change < -MOST_LOST for change in Losses.changes(after, before))
    least = "" if math.isinf(psnr_db) else f"{psnr_db:.1f}"
    times = f"{statistics.median(encode_ms):.1f} | {statistics.median(decode_ms):.1f}"
    return (
        f"| {name} | {pixels / size:.2f} | {times} | {least} | {losses.mean:+.4f} | {losses.worst:+.3f} | "
        f"{lost} of {losses.images} |"
    )


ROWS: Final = (codec_study,)

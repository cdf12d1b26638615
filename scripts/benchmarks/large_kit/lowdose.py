"""Low-dose CT: a study trains a residual network and a student at half of its resolution, and makes that int8; its pick is
timed beside the network's float32.

The study's folder lies below EDGEDEPLOY_CACHE (else the user's cache), named by the study file and the seed: what is
there is not trained or measured again. The figures of the row are taken anew each time, on slices that the search never
saw.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from benchmarks.shared.rows import Asked, Row, RowMaker
from edgedeploy import RunOptions, Study, StudyResult, load_study
from edgedeploy.errors import EdgeDeployError
from edgedeploy.interfaces.task import Case, Task
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.lowdose.making import cache_folder

MOST_TIME: Final = 0.3
"""Of ONNX Runtime float32's CPU time."""

MOST_PSNR_DB: Final = 0.1
MOST_SSIM: Final = 0.002
ROUNDS: Final = 40
"""Turns of each side; which goes first alternates."""

STUDY: Final = f"""
[study]
name = "large-low-dose-ct"
seed = SEED
targets = ["onnxruntime", "openvino"]

[task]
kind = "low-dose-ct"

[task.options]
bodies = 240
data_seed = SEED
seed = SEED
base_channels = 16
blocks = [1]
baseline = {{ epochs = 30, batch_size = 4, learning_rate = 2e-3 }}
recovery = {{ epochs = 10, batch_size = 4, learning_rate = 1e-3, distill_weight = 0.0 }}

[[boards]]
name = "here"
kind = "local"

[plans.stem] # what reads the slice, in HU, stays float
node_conv2d = "float32"

[space]
student = ["none", "folded-32"]
recovery_epochs = [90]
precision = ["float32", "int8"]
plan = ["none", "stem"]
threads = [1]

[[try]]
target = "openvino"
precision = "int8"
student = "folded-32"
plan = "stem"

[[try]]
target = "openvino"
precision = "int8"
student = "folded-32"

[[objectives]]
metric = "psnr_db"
min_effect = 0.02

[[objectives]]
metric = "cpu_time_ratio"
min_effect = 0.02

[evidence]
margin = {{ psnr_db = {MOST_PSNR_DB}, ssim = {MOST_SSIM} }}

[budget]
trials = 4
recovered_baseline = false
wall_clock = "60 min"

[measure] # the times of the row are taken below; a busy machine may make the search's own uncertain
queries = 64
cold_starts = 0
max_drift = 2.0
max_spread = 2.0
max_background_cores = 64
"""


@dataclass(frozen=True)
class Side:
    """One artifact in this process: ``run`` takes a case's inputs, on one thread."""

    label: str
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def studied(seed: int) -> tuple[Study, StudyResult]:
    text = STUDY.replace("SEED", str(seed))
    folder = cache_folder() / f"large-{sha256(text.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    out = folder / "out"
    study = load_study(folder / "study.toml")
    return study, study.run(RunOptions(out=out, resume=out.exists(), confirm=False))


def chosen(result: StudyResult) -> str | None:
    """The pick; where none is shown, what is nearest to float32 in PSNR, whose figures then say what is missing."""
    if result.front.pick is not None:
        return result.front.pick.digest
    others = [row for row in result.front.rows if not row.baseline and not row.variant.recovered]
    return max(others, key=lambda row: row.estimates["psnr_db"].value).digest if others else None


def opened(result: StudyResult, digest: str) -> Side:
    row = next(row for row in result.front.rows if row.digest == digest)
    folder = (result.folder / row.file).parent
    artifact = Artifact.from_json(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    return Side(row.variant.label, session.run)


def scores(
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]], task: Task, cases: Sequence[Case]
) -> dict[str, list[float]]:
    """By metric, of each case."""
    arch = {name: values[0] for name, values in task.architecture.items()}
    rows = [task.evaluate(run(task.inputs(case, **arch)), case) for case in cases]
    return {name: [float(row[name] or 0.0) for row in rows] for name in task.metrics}


def cpu_times_s(sides: Sequence[Side], feed: Mapping[str, Any]) -> list[list[float]]:
    """Of each side, CPU seconds of this process in each round: whole inferences, the sides in turn."""
    found: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side.run(feed)
    for turn in range(ROUNDS):
        order = list(enumerate(sides))
        for place, side in order if turn % 2 else reversed(order):
            started = time.process_time()
            for _ in range(4):
                side.run(feed)
            found[place].append((time.process_time() - started) / 4)
    return found


def low_dose_ct(asked: Asked) -> Row:
    what = "low-dose CT: what a study finds beside ONNX Runtime float32, one thread, on held-out slices"
    bar = f"<= {MOST_TIME}x of CPU time, within {MOST_PSNR_DB} dB and {MOST_SSIM} SSIM"
    try:
        study, result = studied(asked.seed)
    except EdgeDeployError as exc:
        return Row(what, str(exc), bar, holds=False)
    digest, reference = chosen(result), result.front.reference
    if digest is None or reference is None:
        return Row(what, f"nothing to hold against float32: {result.reason}", bar, holds=False)
    task = load_task(study.spec.task.model_dump(), result.folder)
    sides = opened(result, digest), opened(result, reference)
    cases = task.cases("confirmation")
    own, base = (scores(side.run, task, cases) for side in sides)
    noisy = scores(lambda feed: {"image": feed["image"]}, task, cases)
    arch = {name: values[0] for name, values in task.architecture.items()}
    times = cpu_times_s(sides, task.inputs(cases[0], **arch))
    ratios = sorted(one / other for one, other in zip(*times, strict=True))
    ratio, (low, _, high) = statistics.median(ratios), statistics.quantiles(ratios, n=4)
    lost = {name: statistics.mean(base[name]) - statistics.mean(own[name]) for name in own}
    spread = f"{ratio:.2f}x (quartiles {low:.2f} to {high:.2f}) of {statistics.median(times[1]) * 1e3:.1f} ms"
    parts = (f"{sides[0].label}: {spread}", _said(own), f"float32 {_said(base)}", f"the noisy slices {_said(noisy)}")
    found = f"{'; '.join(parts)}; {len(cases)} slices"
    holds = ratio <= MOST_TIME and lost["psnr_db"] <= MOST_PSNR_DB and lost["ssim"] <= MOST_SSIM
    return Row(what, found, bar, holds)


def _said(found: Mapping[str, Sequence[float]]) -> str:
    psnr, ssim, rmse = (found[name] for name in ("psnr_db", "ssim", "rmse_hu"))
    means = f"{statistics.mean(psnr):.2f} dB, SSIM {statistics.mean(ssim):.4f}, RMSE {statistics.mean(rmse):.2f} HU"
    return f"{means} (worst {min(psnr):.2f} dB, {min(ssim):.4f}, {max(rmse):.2f} HU)"


ROWS: Final[tuple[RowMaker, ...]] = (low_dose_ct,)

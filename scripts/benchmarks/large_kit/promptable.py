"""A promptable transformer: a variant that takes a quarter of its float model's CPU time and finds the same structures.

Trained here: a prompted U-Net from labels, the transformer with it as teacher, a small U-Net with the transformer as
teacher. What is trained stays in EDGEDEPLOY_CACHE (else the user's cache folder) and is used again. The variant is chosen
on the selection split and judged on the confirmation split, which nothing else has seen.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.shared.host import circumstances
from benchmarks.shared.rows import Asked, Row
from benchmarks.shared.turns import cpu_times
from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.model import train_baseline
from edgedeploy.compress.oversight import Oversight
from edgedeploy.compress.shaped import built
from edgedeploy.compress.training import fit
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Case, TrainRecipe
from edgedeploy.records.variant import digest_of
from edgedeploy.reference.export import Reference, export_reference
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.tasks.promptable.options import PromptableOptions
from edgedeploy.tasks.promptable.task import Promptable

SIDE_PX: Final = 96
VIT: Final = "vit-6"
STUDENT: Final = "cnn-8"
TARGETS: Final = {"onnxruntime": OnnxRuntimeTarget(), "openvino": OpenVinoTarget()}
REAL: Final = "data/usgra-seg/dataset"
CANDIDATES: Final = (
    (VIT, "onnxruntime", "int8-dynamic"),
    (VIT, "openvino", "int8"),
    (VIT, "openvino", "bfloat16"),
    (STUDENT, "onnxruntime", "float32"),
    (STUDENT, "onnxruntime", "int8"),
    (STUDENT, "openvino", "int8"),
)
MOST_TIME: Final = 0.25
MOST_LOST: Final = 0.01
ROUNDS: Final = 15
QUERIES: Final = 5


@dataclass(frozen=True)
class Candidate:
    network: str
    target: str
    precision: str
    session: Any

    @property
    def text(self) -> str:
        return f"{self.network} {self.precision} on {self.target}"


def promptable_variant(asked: Asked) -> Row:
    """A variant at most .25x of ONNX Runtime float32's CPU time, within .01 mean Dice on the confirmation split."""
    task, images = _task(asked.seed)
    vit, student = _trained(task)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-promptable-") as folder:
        references = {
            name: _exported(task, name, model, Path(folder)) for name, model in ((VIT, vit), (STUDENT, student))
        }
        wanted = ((VIT, "onnxruntime", "float32"), *CANDIDATES)
        sides = [_built(task, references[name], (name, *how), Path(folder)) for name, *how in wanted]
        ratios = _cpu_ratios(sides, [task.inputs(case, **_arch(VIT)) for case in task.cases("selection")[:QUERIES]])
        chosen = _chosen(task, sides, ratios)
        cases = task.cases("confirmation")
        baseline, found = (np.array(_dice(task, side, cases)) for side in (sides[0], chosen))
    lost, error = _clustered(baseline - found, [task.group_of(case) for case in cases])
    ratio, low, high = (float(np.percentile(ratios[sides.index(chosen)], share)) for share in (50, 25, 75))
    parameters = sum(value.numel() for value in vit.parameters())
    others = ", ".join(
        f"{side.text} {np.median(ratios[i]):.2f}x" for i, side in enumerate(sides) if i and side != chosen
    )
    what = f"promptable ViT, {parameters / 1e6:.1f} M parameters, {SIDE_PX} px, {images}, {len(cases)} prompts held out"
    said = (
        f"{chosen.text}: {ratio:.3f}x (quartiles {low:.3f} to {high:.3f}), Dice {found.mean():.4f} against "
        f"{baseline.mean():.4f}, lost {lost:+.4f} (standard error by image {error:.4f}); {others}; {circumstances()}"
    )
    return Row(what, said, f"<= {MOST_TIME}x, lost <= {MOST_LOST} Dice", ratio <= MOST_TIME and lost <= MOST_LOST)


def _task(seed: int) -> tuple[Promptable, str]:
    """On real ultrasound where EDGEDEPLOY_SHARED has it, else on synthetic, and which."""
    bf16: dict[str, Any] = {"batch_size": 8, "bfloat16": True, "seed": seed}
    settings: dict[str, Any] = {
        "resolutions": (SIDE_PX,),
        "teacher": "cnn-16",
        "seed": seed,
        "taught": TrainRecipe(epochs=12, learning_rate=3e-3, weight_decay=1e-2, **bf16),
        "baseline": TrainRecipe(
            epochs=34,
            learning_rate=5e-4,
            weight_decay=5e-2,
            warmup_epochs=2,
            distill_weight=0.5,
            early_epochs=26,
            early_arch={"resolution": 64},
            **bf16,
        ),
        "recovery": TrainRecipe(epochs=16, learning_rate=3e-3, weight_decay=1e-2, distill_weight=0.5, **bf16),
    }
    shared = os.environ.get("EDGEDEPLOY_SHARED")
    if shared and (Path(shared) / REAL).is_dir():
        return Promptable(PromptableOptions(root=str(Path(shared) / REAL), **settings)), "real ultrasound (usgra-seg)"
    return Promptable(PromptableOptions(**settings)), "synthetic ultrasound"


def _trained(task: Promptable) -> tuple[Any, Any]:
    """The transformer and the student, from the cache where they are there. A training that was cut off goes on."""
    options = {name: value for name, value in asdict(task.options).items() if name != "root"}
    real = "real" if task.options.root else "synthetic"
    cache = os.environ.get("EDGEDEPLOY_CACHE") or Path.home() / ".cache" / "edgedeploy"
    folder = Path(cache) / f"promptable-{real}-{digest_of(options)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.pt" for name in (VIT, STUDENT)}
    if not paths[VIT].is_file():
        oversight = Oversight("the transformer", checkpoint=folder / "vit.checkpoint")
        save_weights(train_baseline(task, _arch(VIT), oversight=oversight), paths[VIT])
        drop_checkpoint(folder / "vit.checkpoint")
    vit = load_weights(built(task, _arch(VIT)), paths[VIT])
    if not paths[STUDENT].is_file():
        student = built(task, _arch(STUDENT))
        oversight = Oversight("the student", checkpoint=folder / "student.checkpoint")
        fit(student, task, task.recovery_recipe, arch=_arch(STUDENT), teacher=vit, oversight=oversight)
        save_weights(student, paths[STUDENT])
        drop_checkpoint(folder / "student.checkpoint")
    return vit, load_weights(built(task, _arch(STUDENT)), paths[STUDENT])


def _arch(network: str) -> dict[str, Any]:
    return {"resolution": SIDE_PX, "network": network}


def _exported(task: Promptable, name: str, model: Any, folder: Path) -> Reference:
    arch = _arch(name)
    samples = [task.inputs(case, **arch) for case in task.cases("calibration")[:4]]
    return export_reference(model.eval(), task.input_specs(**arch), folder / name / "reference.onnx", samples=samples)


def _built(task: Promptable, reference: Reference, asked: Sequence[str], folder: Path) -> Candidate:
    network, target, precision = asked

    def calibration() -> Iterator[Any]:
        return (task.inputs(case, **_arch(network)) for case in task.cases("calibration"))

    place = folder / "-".join(asked)
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, precision, calibration)
    artifact = TARGETS[target].build(request, place)
    session = open_session(target, place, artifact.entry, dict(artifact.settings), 1)
    return Candidate(network, target, precision, session)


def _cpu_ratios(sides: Sequence[Candidate], feeds: Sequence[Mapping[str, Any]]) -> Any:
    """CPU time of a block of queries beside that of the first side in the same round: (sides, rounds). One thread each; they
    take turns, every other round backwards."""
    times = cpu_times([side.session for side in sides], feeds, ROUNDS)
    return times / times[0]


def _chosen(task: Promptable, sides: Sequence[Candidate], ratios: Any) -> Candidate:
    """Of the candidates that take at most ``MOST_TIME``, the one with the best Dice on the selection split; of none, the
    fastest."""
    fast = [side for index, side in enumerate(sides) if index and np.median(ratios[index]) <= MOST_TIME]
    if not fast:
        return sides[int(np.argmin(np.median(ratios, axis=1)))]
    cases = task.cases("selection")
    return max(fast, key=lambda side: statistics.mean(_dice(task, side, cases)))


def _dice(task: Promptable, side: Candidate, cases: Sequence[Case]) -> list[float]:
    arch = _arch(side.network)
    return [float(task.evaluate(side.session.run(task.inputs(case, **arch)), case)["dice"] or 0.0) for case in cases]


def _clustered(differences: Any, groups: Sequence[str]) -> tuple[float, float]:
    """Mean of differences over cases, and its standard error where cases of one group are not independent: of the mean over
    the groups' sums (Cameron and Miller, "A practitioner's guide to cluster-robust inference", 2015)."""
    mean = float(np.mean(differences))
    sums = [sum(d - mean for d, group in zip(differences, groups, strict=True) if group == one) for one in set(groups)]
    return mean, float(np.sqrt(np.sum(np.square(sums)))) / len(differences)


ROWS: Final = (promptable_variant,)

"""The contest's checkpoint: trained once from the images, kept beside what it is worth."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.contest_kit.task import ContestTask, make_task
from benchmarks.shared.sources import say
from edgedeploy.compress.model import train_baseline
from edgedeploy.compress.oversight import Oversight, TrainProgress, TrainReport
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.task import baseline_arch
from edgedeploy.reference.export import Reference, describe, export_reference
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.runtime.files import sha256_file

CHECKPOINT: Final = "checkpoint.pt"
TOLD: Final = "checkpoint.json"
HALF_TRAINED: Final = "half-trained.pt"
DATA: Final = "data/usgra-seg/dataset"


def shared_images() -> Path | None:
    """The data set's folder below EDGEDEPLOY_SHARED, where that is set."""
    shared = os.environ.get("EDGEDEPLOY_SHARED")
    return Path(shared) / DATA if shared else None


@dataclass(frozen=True)
class Source:
    """The task on the images of ``root``, and what is made of it once in ``folder``: the checkpoint, its ONNX reference
    and the program that torch exports."""

    root: Path
    folder: Path

    @cached_property
    def task(self) -> ContestTask:
        return make_task(str(self.root))

    @property
    def arch(self) -> dict[str, Any]:
        return dict(baseline_arch(self.task))

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @cached_property
    def told(self) -> Mapping[str, Any]:
        """How the checkpoint was trained."""
        found: Mapping[str, Any] = json.loads((self.folder / TOLD).read_text(encoding="utf-8"))
        return found

    @cached_property
    def model(self) -> Any:
        """The float network with the checkpoint's weights, in evaluation mode."""
        model = self.task.build(**self.arch)
        WeightsFile(self.checkpoint).load_into(model)
        return model.eval()

    @cached_property
    def reference(self) -> Reference:
        path = self.folder / "reference.onnx"
        if path.is_file():
            return describe(path)
        return export_reference(self.model, self.task.input_specs(**self.arch), path)

    @cached_property
    def program(self) -> Path:
        path = self.folder / PROGRAM_FILE
        if not path.is_file():
            export_program(self.model, self.task.input_specs(**self.arch), path)
        return path

    def calibration(self) -> list[dict[str, Any]]:
        """The inputs that every side calibrates with."""
        return [dict(self.task.inputs(case, **self.arch)) for case in self.task.cases("calibration")]


def train_once(source: Source) -> None:
    """Train the checkpoint unless it is there. A training that was cut off goes on from its last whole epoch."""
    import torch

    if source.checkpoint.is_file():
        return
    source.folder.mkdir(parents=True, exist_ok=True)
    say(
        f"training the checkpoint: {len(source.task.cases('train'))} images, {source.task.baseline_recipe.epochs} epochs"
    )
    load_before = os.getloadavg()[0]
    reports: list[TrainReport] = []
    half = source.folder / HALF_TRAINED
    oversight = Oversight("the contest's checkpoint", _tell, half, done=reports.append)
    model = train_baseline(source.task, source.arch, oversight=oversight)
    part = source.folder / f"{CHECKPOINT}.part"
    torch.save(model.state_dict(), part)
    facts = {
        **reports[0].as_json(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": sha256_file(part),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "left_out": source.task.left_out,
        "cases": {
            split: len(source.task.cases(split)) for split in ("train", "calibration", "selection", "confirmation")
        },
    }
    write_atomic(source.folder / TOLD, json.dumps(facts, indent=2).encode())
    part.replace(source.checkpoint)
    half.unlink(missing_ok=True)


def _tell(state: TrainProgress) -> None:
    left = "" if state.left_s is None else f", {state.left_s / 60:.1f} min left"
    say(f"  epoch {state.epoch} of {state.epochs}, loss {state.loss:.3f}{left}")

"""A network made ready for the targets: its reference, its cases and what is built from it; for targets and tools."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.shared.networks import Network
from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.model import train_baseline
from edgedeploy.files import read_arrays, write_atomic
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.job import Payload, RawRun
from edgedeploy.reference.export import Reference, describe, export_reference, reference_outputs
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.reference.take_in import take_in
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.limits import stability_limits
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.targets.steady import build_steadily
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound

THREADS: Final = max(1, min(os.cpu_count() or 1, 2))
REPEATS: Final = 3
"""Runs that are tried until the conditions hold."""

LIMITS: Final = stability_limits(MeasureTable())


class Source:
    """One network made ready: its reference, calibration cases, golden outputs and stacked inputs."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder

    @cached_property
    def module(self) -> Any:
        if self.network.module is not None:
            return self.network.module()
        return trained_unet(self.folder.parent / "unet")

    @cached_property
    def reference(self) -> Reference:
        path = self.folder / "reference.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.network.file:
            write_atomic(path, take_in(self.network.path, self.network.shapes).data)
            return describe(path)
        return export_reference(self.module, self.network.specs, path)

    def cases(self) -> Iterator[dict[str, Array]]:
        return self.network.cases(self.reference.inputs)

    @cached_property
    def inputs(self) -> Path:
        path = self.folder / "inputs.npz"
        rows = list(self.cases())[:GOLDEN_CASES]
        np.savez(path, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
        return path

    @cached_property
    def golden(self) -> dict[str, Array]:
        rows = list(reference_outputs(self.reference, list(self.cases())[:GOLDEN_CASES]))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    @cached_property
    def program(self) -> Path | None:
        """What torch exports, for targets that convert from torch; None for an ONNX file."""
        if self.network.file:
            return None
        path = self.folder / PROGRAM_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        export_program(self.module, self.network.specs, path)
        return path

    def request(self, precision: str) -> BuildRequest:
        reference = self.reference
        return BuildRequest(
            reference=reference.path,
            inputs=reference.inputs,
            outputs=reference.outputs,
            precision=precision,
            calibration=self.cases,
            program=self.program,
        )

    def build(self, target: Target, precision: str) -> Payload:
        folder = self.folder / f"{target.name}-{precision}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        artifact, _ = build_steadily(lambda empty: target.build(self.request(precision), empty), folder)
        return Payload(artifact, folder, self.inputs, THREADS)


def trained_unet(folder: Path) -> Any:
    """The baseline of the embedded study, trained once: weights of noise would quantize unlike a network's."""
    task = SyntheticUltrasound()
    arch = {name: values[0] for name, values in task.architecture.items()}
    path = folder / "weights.pt"
    if not path.is_file():
        say("training the UNet of the embedded study")
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(train_baseline(task, arch), path)
    return load_weights(task.build(**arch), path).eval()


def read_outputs(raw: RawRun) -> dict[str, Array]:
    assert raw.outputs is not None
    return read_arrays(raw.outputs)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()

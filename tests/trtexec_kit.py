"""Boards for the tests of TensorRT, with a SIMULATION of trtexec: no GPU runs here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from board_kit import SHAPE, conv_model
from simulated_trtexec import install

from edgedeploy.artifact import Artifact, TensorSpec
from edgedeploy.boards.local import LocalTransport
from edgedeploy.precision import PrecisionPlan
from edgedeploy.protocols import Array, BuildRequest
from edgedeploy.targets.tensorrt import TensorRtTarget, TrtResult, measure_on_board

ORIN = {"code": "100300", "build": 30, "gpu": "Orin", "capability": "8.7"}
XAVIER = {"code": "8502", "gpu": "Xavier", "capability": "7.2"}
XAVIER_82 = {"code": "8201", "gpu": "Xavier", "capability": "7.2"}
XAVIER_80 = {"code": "8001", "gpu": "Xavier", "capability": "7.2"}
NANO = {"code": "8201", "gpu": "Nano", "capability": "5.3"}
CHIPS = {"Orin": "tegra234", "Xavier": "tegra194", "Nano": "tegra210"}


def cases(count: int = 3) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(3)
    for _ in range(count):
        yield {"x": generator.standard_normal(SHAPE).astype(np.float32)}


def build(folder: Path, precision: str, plan: dict[str, str] | None = None) -> tuple[Artifact, Path]:
    model = folder / "reference.onnx"
    conv_model(model)
    proto = onnx.load(str(model))
    proto.opset_import[0].version = 13  # for JetPack 4; its operators are the same there
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}/{node.op_type}"
    onnx.save(proto, str(model))
    outputs = (TensorSpec("y", "float32", (1, 2, 16, 16)),)
    asked = BuildRequest(model, (TensorSpec("x", "float32", SHAPE),), outputs, precision, cases)
    asked = replace(asked, plan=PrecisionPlan.of(plan or {}))
    return TensorRtTarget().build(asked, folder / "artifact"), folder / "artifact"


class SimulatedJetson:
    """A folder that stands for a board: its trtexec, its system files, and what is kept on it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.trtexec = install(folder / "bin", **settings)
        tree = folder / "proc" / "device-tree"
        tree.mkdir(parents=True)
        (tree / "model").write_bytes(f"NVIDIA Jetson {settings['gpu']}\0".encode())
        (tree / "compatible").write_bytes(f"nvidia,p0000\0nvidia,{CHIPS[settings['gpu']]}\0".encode())
        (folder / "etc").mkdir()
        (folder / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n", encoding="utf-8")

    def reconfigure(self, **settings: Any) -> None:
        install(self.folder / "bin", **settings)

    def measure(self, built: tuple[Artifact, Path], **options: Any) -> TrtResult:
        artifact, folder = built
        place = {"candidates": (self.trtexec,), "sysroot": str(self.folder), "root": str(self.folder / "root")}
        return measure_on_board(LocalTransport(), artifact, folder, cases(), **{**place, **options})

    @property
    def calls(self) -> list[str]:
        return (self.folder / "bin" / "calls.log").read_text(encoding="utf-8").splitlines()

    @property
    def builds(self) -> int:
        return sum("--onnx=" in call for call in self.calls)

"""int8 of the small networks on a processor without VNNI: calibrated and trained, as files with 7-bit weights.

The files are built here and run by the emulated processor; what is told there is what its kernels compute, no time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, SPECS, images, network, quantized
from x86_kit import as_avx2, need_avx2_emulation

from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference import quantized as qdq
from edgedeploy.reference.export import Reference, export_reference, open_onnx
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.quantize import IN_FLOAT
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = pytest.mark.timeout(900)

RUN_LIMIT_S = 600.0
CASES = 6

each_network = pytest.mark.parametrize("name", NETWORKS)
each_target = pytest.mark.parametrize("target", [OnnxRuntimeTarget, OpenVinoTarget])

RUN = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
import numpy as np
from edgedeploy.runtime.sessions.open import open_session
assert "vnni" not in Path("/proc/cpuinfo").read_text()
for order in json.loads(Path(sys.argv[2]).read_text()):
    folder = Path(order["folder"])
    session = open_session(order["target"], folder / "built", order["entry"], order["settings"], 1)
    rows = np.load(folder / "rows.npy")
    np.save(folder / "found.npy", np.concatenate([session.run({"image": row})["out0"] for row in rows]))
    (folder / "executed.json").write_text(json.dumps(session.executed()))
"""
"""All networks of a target in one process: to start an interpreter with its runtime takes that processor 3 s."""

Made = tuple[Artifact, Array]
Make = Callable[[type[Target], str, Path], Made]
"""Of a network by its name: the artifact in the folder ``built``, and the answers that it is held against."""


class Answers:
    """What the processor without VNNI computes of every network, by the way that its file was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[type[Target], Make], dict[str, Made | Exception]] = {}

    def of(self, target: type[Target], make: Make, name: str) -> tuple[Array, Array]:
        """The answers that are wanted and those that were found, of int8 that was run. Raises what making it raised."""
        if (target, make) not in self._made:
            self._made[target, make] = self._run(target, make)
        made = self._made[target, make][name]
        if isinstance(made, Exception):
            raise made
        folder = self._place(target, make, name)
        assert json.loads((folder / "executed.json").read_text())["int8"] >= 2
        return made[1], np.load(folder / "found.npy")

    def _run(self, target: type[Target], make: Make) -> dict[str, Made | Exception]:
        made: dict[str, Made | Exception] = {}
        orders = []
        for name in NETWORKS:
            folder = self._place(target, make, name)
            folder.mkdir(parents=True)
            np.save(folder / "rows.npy", images(CASES, seed=9).numpy()[:, None])
            try:
                artifact, wanted = make(target, name, folder)
            except Exception as exc:  # of one network: the others go on
                made[name] = exc
                continue
            made[name] = artifact, wanted
            settings = dict(artifact.settings)
            orders.append(
                {"folder": str(folder), "target": artifact.target, "entry": artifact.entry, "settings": settings}
            )
        order = self._folder / f"{target.__name__}-{make.__name__}.json"
        order.write_text(json.dumps(orders))
        paths = json.dumps([path for path in sys.path if path])
        done = as_avx2([sys.executable, "-P", "-c", RUN, paths, order], timeout_s=RUN_LIMIT_S)
        assert done.returncode == 0, done.stderr[-3000:]
        return made

    def _place(self, target: type[Target], make: Make, name: str) -> Path:
        return self._folder / target.__name__ / make.__name__ / name


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    need_avx2_emulation()
    return Answers(tmp_path_factory.mktemp("without-vnni"))


def request(reference: Reference, **changes: Any) -> BuildRequest:
    def calibration() -> Iterator[Mapping[str, Array]]:
        return ({"image": row[None]} for row in images(32, seed=1).numpy())

    asked = BuildRequest(reference.path, reference.inputs, reference.outputs, "int8", calibration)
    return replace(asked, quantized=reference.quantized, **changes)


def in_float(artifact: Artifact, folder: Path) -> Array:
    """What the file says, computed in float: no sum saturates."""
    rows = images(CASES, seed=9).numpy()[:, None]
    if artifact.target == "onnxruntime":
        session = open_onnx(folder / artifact.entry, threads=1, as_written=True)
        return np.concatenate([session.run(["out0"], {"image": row})[0] for row in rows])
    import openvino as ov

    settings = {**dict(artifact.settings), **IN_FLOAT}
    compiled = ov.Core().compile_model(str(folder / artifact.entry), "CPU", settings)
    return np.concatenate([next(iter(compiled({"image": row}).values())).copy() for row in rows])


def trained(target: type[Target], name: str, folder: Path) -> Made:
    model = quantized(name, weight_bits=7)
    samples = [{"image": images(1, seed=seed).numpy()} for seed in range(2)]
    reference = qdq.export_quantized(model, SPECS, folder / "reference.onnx", samples=samples)
    with torch.no_grad():
        wanted = model(images(CASES, seed=9)).numpy()
    return target().build(request(reference), folder / "built"), wanted


def calibrated(target: type[Target], name: str, folder: Path) -> Made:
    reference = export_reference(network(name), SPECS, folder / "reference.onnx")
    artifact = target().build(request(reference, weight_bits=7), folder / "built")
    return artifact, in_float(artifact, folder / "built")


@each_network
@each_target
def test_trained_int8_agrees_with_training(target: type[Target], name: str, answers: Answers) -> None:
    """As :mod:`test_qdq` holds it on this host: within four steps of the last scale, within one on average."""
    wanted, found = answers.of(target, trained, name)
    step = np.abs(wanted).max() / 127
    assert np.abs(found - wanted).max() <= 4 * step
    assert np.abs(found - wanted).mean() <= step


@each_network
@each_target
def test_calibrated_int8_computes_what_its_file_says(target: type[Target], name: str, answers: Answers) -> None:
    wanted, found = answers.of(target, calibrated, name)
    assert np.linalg.norm(found - wanted) <= 0.02 * np.linalg.norm(wanted)

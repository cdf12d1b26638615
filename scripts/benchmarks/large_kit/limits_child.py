"""Does one thing to a model in a process of its own and tells the most memory that it had: ``limits_child.py ORDER``.

The order is JSON (``do``, and what that takes); the answer is one line of JSON on standard output. A process of its own
makes the peak that of the one thing: what was in memory before and is not given back is no part of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.agent.worker import peak_memory_bytes

ENCODERS: Final[Mapping[str, tuple[int, int, int]]] = {"encoder-22m": (384, 12, 6), "encoder-100m": (768, 14, 12)}
"""Name to width, blocks and heads of a ViT with patches of 16 x 16 of a 224 x 224 image."""

IMAGE: Final = (TensorSpec("image", "float32", (1, 3, 224, 224)),)
WIDE: Final = "wide-"
"""A network of two square layers: the name ends with their side."""

FRAME: Final = (TensorSpec("image", "float32", (1, 1, 128, 128)),)


def cases(specs: tuple[TensorSpec, ...], count: int) -> Iterator[dict[str, Array]]:
    """Seeded inputs, each made when it is asked for."""
    for seed in range(count):
        draw = np.random.default_rng(seed)
        yield {spec.name: draw.random(spec.shape, dtype=np.float32) for spec in specs}


def network(name: str) -> tuple[Any, tuple[TensorSpec, ...]]:
    """A seeded, untrained module and its input."""
    from benchmarks.shared.networks import settled, small_vit

    if name in ENCODERS:
        return small_vit(*ENCODERS[name]), IMAGE
    if name.startswith(WIDE):
        import torch
        from torch import nn

        side = int(name.removeprefix(WIDE))
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(side, side), nn.ReLU(), nn.Linear(side, side)).eval()
        return layers, (TensorSpec("features", "float32", (1, side)),)
    from edgedeploy.tasks.segmentation.unet import build_unet

    model = build_unet(in_channels=1, classes=3, base=32, depth=4, upsampling="resize", seed=0)
    return settled(model, FRAME[0].shape), FRAME


def export(order: Mapping[str, Any]) -> dict[str, Any]:
    """The network's reference in ``folder``."""
    from edgedeploy.reference.export import export_reference

    model, specs = network(order["network"])
    path = Path(order["folder"]) / f"{order['network']}.onnx"
    reference = export_reference(model, specs, path, samples=cases(specs, order.get("samples", 4)))
    return {"reference": reference.as_json(), "weights_bytes": 4 * reference.parameters}


def build(order: Mapping[str, Any]) -> dict[str, Any]:
    """An artifact by edgedeploy, calibrated on ``cases``."""
    from edgedeploy.reference.export import Reference
    from edgedeploy.targets.registry import find_targets

    folder = Path(order["folder"])
    reference = Reference.from_json(order["reference"], folder)
    target = next(plugin.load() for plugin in find_targets() if plugin.name == order["target"])
    request = BuildRequest(
        reference=reference.path,
        inputs=reference.inputs,
        outputs=reference.outputs,
        precision=order["precision"],
        calibration=lambda: cases(reference.inputs, order["cases"]),
        calibrator=order.get("calibrator", ""),
    )
    artifact = target.build(request, folder / order["name"])
    return {"size_bytes": artifact.size_bytes, "artifact": artifact.as_json()}


def take_in(order: Mapping[str, Any]) -> dict[str, Any]:
    """A clean copy of the reference's file as if a user had given it: the limited process that makes it, and this one."""
    import resource

    from edgedeploy.reference.take_in import take_in as taken

    found = taken(Path(order["folder"]) / order["reference"]["file"], {})
    child_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"size_bytes": len(found.data), "child_peak_bytes": child_bytes}


def golden(order: Mapping[str, Any]) -> dict[str, Any]:
    """The reference's outputs on ``cases``, kept beside it."""
    from edgedeploy.reference.export import Reference, kept_outputs

    folder = Path(order["folder"])
    reference = Reference.from_json(order["reference"], folder)
    kept_outputs(reference, list(cases(reference.inputs, order["cases"])), folder / "golden.npz")
    return {"size_bytes": (folder / "golden.npz").stat().st_size}


def on_board(order: Mapping[str, Any]) -> dict[str, Any]:
    """The artifact ``name`` on this host as a board, and how far its outputs are from the reference's."""
    from dataclasses import replace

    from edgedeploy.boards.agent.board import RemoteBoard
    from edgedeploy.boards.agent.session import BoardOptions
    from edgedeploy.boards.local import LocalTransport
    from edgedeploy.files import mapped_arrays, write_stacked
    from edgedeploy.records.artifact import Artifact
    from edgedeploy.records.job import Job, MeasurePlan, Payload
    from edgedeploy.reference.export import Reference, kept_outputs
    from edgedeploy.reference.parity import worst_distance

    folder = Path(order["folder"])
    reference = Reference.from_json(order["reference"], folder)
    feeds = list(cases(reference.inputs, order["cases"]))
    write_stacked(folder / "inputs.npz", feeds)
    artifact = Artifact.from_json(order["artifact"])
    payload = Payload(artifact, folder / order["name"], folder / "inputs.npz", 1)
    options = BoardOptions(python=sys.executable, root=str(folder / "board"))
    board = RemoteBoard("here", LocalTransport, provenance="measured", options=options)
    plan = replace(MeasurePlan(queries=0, cold_starts=0), time_limit_s=300.0)
    with board.session() as session:
        run = session.measure(Job(payload, None, plan), folder)
    assert run.outputs is not None
    outputs = mapped_arrays(run.outputs)
    wanted = kept_outputs(reference, feeds, folder / "golden.npz")
    found = [{name: rows[index] for name, rows in outputs.items()} for index in range(len(feeds))]
    return {
        "distance": worst_distance(zip(wanted, found, strict=True)),
        "board_peak_bytes": run.candidate.peak_memory_bytes,
    }


def by_tool(order: Mapping[str, Any]) -> dict[str, Any]:
    """int8 of the same reference by the toolchain as its documentation has it, on the same cases, one at a time."""
    from edgedeploy.reference.export import Reference

    folder = Path(order["folder"])
    reference = Reference.from_json(order["reference"], folder)
    feeds = cases(reference.inputs, order["cases"])
    path = folder / order["name"]
    if order["target"] == "openvino":
        os.environ["NNCF_CI"] = "1"  # which keeps it from calling home
        import nncf
        import openvino as ov

        found = nncf.quantize(ov.Core().read_model(reference.path), nncf.Dataset(feeds), subset_size=order["cases"])
        ov.save_model(found, path.with_suffix(".xml"))
        return {"size_bytes": path.with_suffix(".bin").stat().st_size}
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    method = {"": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}[order["calibrator"]]
    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(str(reference.path), str(ready), skip_symbolic_shape=True)
    quantize_static(str(ready), str(path.with_suffix(".onnx")), Reader(), per_channel=True, calibrate_method=method)
    return {"size_bytes": path.with_suffix(".onnx").stat().st_size}


DEEDS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "export": export,
    "take_in": take_in,
    "build": build,
    "golden": golden,
    "on_board": on_board,
    "by_tool": by_tool,
}


def main(order: Mapping[str, Any]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    told = DEEDS[order["do"]](order)
    answers.write(json.dumps({**told, "peak_bytes": peak_memory_bytes()}) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

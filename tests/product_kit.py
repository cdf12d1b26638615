"""Real bundles for tests of what a product does with them: a small network, its golden vectors, a key."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import small_onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import read_steps
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.study.bundle.sign import keygen, sign

SIDE = 16
OLDEST_ONNXRUNTIME = "1.19"
STEPS = m.Pipeline(
    input=(
        {"step": "rgb"},
        {"step": "resize", "height": SIDE, "width": SIDE, "method": "bilinear"},
        {"step": "normalise", "divide": 255.0, "mean": [0.5], "std": [0.25]},
        {"step": "tensor", "input": "image", "layout": "NCHW", "dtype": "float32"},
    ),
    output=({"step": "take", "output": "out"}, {"step": "argmax"}, {"step": "restore", "method": "nearest"}),
)
NO_STEPS = m.Pipeline((), ())
Network = Callable[[Path], Path]


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def frames(count: int, seed: int = 3) -> list[Any]:
    """Grey frames of 24 x 40 with soft blobs."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 6, 10), dtype=np.uint8)
    return [np.kron(frame, np.ones((4, 4), np.uint8)) for frame in coarse]


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def ten_megabytes(path: Path) -> Path:
    """As the small network, with 2.4 million weights in the middle."""
    random = np.random.default_rng(0)
    shapes = {"w1": (512, 3, 1, 1), "w2": (512, 512, 3, 3), "w3": (2, 512, 1, 1)}
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["out"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, SIDE, SIDE])
        for name, channels in (("image", 3), ("out", 2))
    ]
    graph = helper.make_graph(nodes, "wide", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def build_artifact(target: str, folder: Path, network: Network) -> tuple[str, dict[str, bytes]]:
    """The entry and the files of a network."""
    model = network(folder / "model.onnx")
    if target == "onnxruntime":
        return "model.onnx", {"model.onnx": model.read_bytes()}
    import openvino

    openvino.save_model(openvino.convert_model(str(model)), str(folder / "model.xml"), compress_to_fp16=False)
    return "model.xml", {name: (folder / name).read_bytes() for name in ("model.xml", "model.bin")}


def make_files(
    target: str = "onnxruntime",
    *,
    steps: m.Pipeline = STEPS,
    release: int = 1,
    name: str = "thyroid",
    cases: int = 2,
    network: Network = small_onnx.convolutional,
) -> dict[str, bytes]:
    """An unsigned bundle's files by name."""
    with tempfile.TemporaryDirectory() as place:
        entry, artifact = build_artifact(target, Path(place), network)
        session = open_session(target, Path(place), entry, {}, 1)
        files = {f"artifact/{item}": data for item, data in artifact.items()}
        golden = []
        for number, frame in enumerate(frames(cases)):
            read = read_steps(STEPS.input, STEPS.output)
            inputs, placement = prepare(read, frame)
            outputs = session.run(inputs)
            arrays = {"image": inputs["image"], "out": outputs["out"]}
            if steps.input:
                arrays |= {"frame": frame, "result": finish(read, outputs, placement)}
            names = {kind: f"golden/c{number}.{kind}.npy" for kind in arrays}
            files |= {names[kind]: npy(array) for kind, array in arrays.items()}
            golden.append(
                m.GoldenCase(
                    f"c{number}",
                    names.get("frame"),
                    {"image": names["image"]},
                    {"out": names["out"]},
                    names.get("result"),
                )
            )
    installed = importlib.metadata.version(target)
    manifest = m.Manifest(
        format="edgedeploy-bundle",
        version=1,
        name=name,
        release=release,
        created=None,
        not_after=None,
        target=target,  # type: ignore[arg-type]
        artifact=m.ArtifactPart("files", tuple(sorted(artifact)), m.Session(entry, {}, 1, {})),
        inputs=(m.Tensor("image", "float32", (1, 3, SIDE, SIDE)),),
        outputs=(m.Tensor("out", "float32", (1, 2, SIDE, SIDE)),),
        pipeline=steps,
        compatibility=m.Compatibility(
            m.RuntimeRange(target, installed, None, installed), platform.machine(), (), None, None
        ),
        golden=m.Golden(
            tuple(golden), {"out": m.Tolerance(1e-4, None)}, m.ResultTolerance(0.01) if steps.input else None
        ),
        files={},
    )
    return with_manifest(files, manifest)


GREY_STEPS = m.Pipeline(
    input=(
        {"step": "grey"},
        {"step": "resize", "height": 32, "width": 32, "method": "bilinear"},
        {"step": "normalise", "divide": 255.0, "mean": [0.5], "std": [0.25]},
        {"step": "tensor", "input": "image", "layout": "NCHW", "dtype": "float32"},
    ),
    output=({"step": "take", "output": "out0"}, {"step": "argmax"}, {"step": "restore", "method": "nearest"}),
)
"""For the networks of :mod:`edgedeploy.testing.models` that take a grey image of 32 x 32."""


def files_of(artifact: Artifact, folder: Path, steps: m.Pipeline = GREY_STEPS, far: float = 1e-4) -> dict[str, bytes]:
    """An unsigned bundle's files around an artifact that a target built. Its golden answers are this host's; a device may
    be ``far`` from them."""
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    files = {f"artifact/{item.name}": (folder / item.name).read_bytes() for item in artifact.files}
    read = read_steps(steps.input, steps.output)
    golden = []
    for number, frame in enumerate(frames(2)):
        inputs, placement = prepare(read, frame)
        outputs = session.run(inputs)
        arrays = {"frame": frame, "result": finish(read, outputs, placement), **inputs, **outputs}
        names = {kind: f"golden/c{number}.{kind}.npy" for kind in arrays}
        files |= {names[kind]: npy(array) for kind, array in arrays.items()}
        golden.append(
            m.GoldenCase(
                f"c{number}",
                names["frame"],
                {name: names[name] for name in inputs},
                {name: names[name] for name in outputs},
                names["result"],
            )
        )
    package = BUILTIN[artifact.target].packages[0]
    version = importlib.metadata.version(package)
    opened = m.Session(artifact.entry, dict(artifact.settings), 1, {})
    tolerance = m.Golden(
        tuple(golden), {spec.name: m.Tolerance(far, None) for spec in artifact.outputs}, m.ResultTolerance(10 * far)
    )
    manifest = m.Manifest(
        format="edgedeploy-bundle",
        version=1,
        name="thyroid",
        release=1,
        created=None,
        not_after=None,
        target=artifact.target,  # type: ignore[arg-type]
        artifact=m.ArtifactPart("files", tuple(sorted(item.name for item in artifact.files)), opened),
        inputs=tuple(m.Tensor(spec.name, spec.dtype, spec.shape) for spec in artifact.inputs),
        outputs=tuple(m.Tensor(spec.name, spec.dtype, spec.shape) for spec in artifact.outputs),
        pipeline=steps,
        compatibility=m.Compatibility(
            m.RuntimeRange(package, version, None, version), platform.machine(), (), None, None
        ),
        golden=tolerance,
        files={},
    )
    return with_manifest(files, manifest)


def with_manifest(files: Mapping[str, bytes], manifest: m.Manifest) -> dict[str, bytes]:
    """The files with a manifest that lists them as they are."""
    kept = {name: data for name, data in files.items() if name not in (m.MANIFEST, m.SIGNATURE)}
    listed = {name: m.FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(kept.items())}
    return {**kept, m.MANIFEST: replace(manifest, files=listed).text()}


def changed(files: Mapping[str, bytes], **fields: Any) -> dict[str, bytes]:
    """The same bundle with other fields of its manifest."""
    return with_manifest(files, replace(m.parse(files[m.MANIFEST]), **fields))


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return write_files(folder, files)


def for_machine(files: Mapping[str, bytes], machine: str, at_least: str = OLDEST_ONNXRUNTIME) -> dict[str, bytes]:
    """The bundle as if it had been made for another machine, with the oldest runtime that there is for a board."""
    wanted = m.parse(files[m.MANIFEST]).compatibility
    runtime = replace(wanted.runtime, at_least=at_least)
    return changed(files, compatibility=replace(wanted, machine=machine, runtime=runtime))


def make_key(folder: Path) -> tuple[Path, Path]:
    """A new key pair: the private and the public file."""
    private = folder / "key.pem"
    public, _ = keygen(private)
    return private, public


def write_signed(folder: Path, files: Mapping[str, bytes], key: Path) -> Path:
    sign(replace_folder(folder, files), key, m.parse(files[m.MANIFEST]).name)
    return folder

"""A measured variant as the repository of a model server: Triton's, or OpenVINO Model Server's.

Both are written by their published forms, and no server has loaded them here: what a server does not take over of what was
measured is said. ``triton-python`` is the layout for Triton's Python backend, in which a server runs the very session that
was measured, with its settings; it needs edgedeploy and the runtime in the server's Python.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError, nearest
from edgedeploy.files import new_folder, place_told, write_atomic, write_json
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.measurement import Measurement
from edgedeploy.runtime.pipeline.tiles import SETTING
from edgedeploy.study.oneshot.desk import require_absent
from edgedeploy.study.oneshot.pbtxt import NO_AXES, TYPES, ModelConfig, Port

VERSION: Final = 1
PYTHON_MODEL: Final = "triton_model.py"
"""In this folder: what the server's Python runs. It is copied as it is."""

SERVER_FILE: Final = "model.py"

NOT_LOADED: Final = {
    "triton": "Written by the form of Triton's model_config.proto; no server has loaded it here.",
    "triton-python": "Written by the form of Triton's model_config.proto, for its Python backend.",
    "ovms": "Written by the form of OpenVINO Model Server's configuration schema; no server has loaded it here.",
}
"""What is said of each repository that was written."""


@dataclass(frozen=True)
class Served:
    """What goes into a repository: the ``artifact``, whose files lie in ``built``, and how it was measured."""

    name: str
    artifact: Artifact
    built: Path
    threads: int
    instances: int = 1
    max_batch: int = 1
    max_wait_ns: int = 0
    queue: int = 0

    @classmethod
    def of(cls, name: str, found: Measurement, built: Path) -> Served:
        """The variant of a measurement; the queue's rules are those of its server scenario, where it had one."""
        rules: Mapping[str, Any] = found.scenarios.get("server", {}).get("rules", {})
        variant = found.variant
        return cls(
            name,
            found.artifact,
            built,
            variant.threads,
            variant.instances,
            variant.max_batch,
            int(rules.get("max_wait_ns", 0)),
            int(rules.get("capacity", 0)),
        )


def write_repository(kind: str, served: Served, out: Path) -> list[str]:
    """Write the new folder ``out``; returns what there is to know about it, a sentence each.

    Raises ``SpecError`` for an unknown kind, an ``out`` that exists, and an artifact that such a server does not take.
    """
    if kind not in _WRITERS:
        raise SpecError(f"--repository {kind}", "there is no such repository", nearest(kind, _WRITERS))
    if SETTING in dict(served.artifact.settings) and kind != "triton-python":
        found = "its artifact is the network of one tile, and such a server puts no tiles together"
        raise SpecError(
            f"--repository {kind}", found, "Export with --repository triton-python, or a variant without tiles"
        )
    require_absent(out)
    with place_told(out), new_folder(out) as part:
        return [NOT_LOADED[kind], *_WRITERS[kind](served, part)]


def _triton(served: Served, folder: Path) -> list[str]:
    target = served.artifact.target
    if target not in ("onnxruntime", "openvino"):
        remedy = "Export with --repository triton-python, which opens it by its own runtime"
        raise SpecError(f"a Triton repository of target {target!r}", "Triton has no backend for such files", remedy)
    threads = {"intra_op_thread_count": str(served.threads)} if target == "onnxruntime" else {}
    config = _config(served, target, served.artifact.entry, threads)
    _copy_files(served, folder / served.name / str(VERSION))
    write_atomic(folder / served.name / "config.pbtxt", config.text().encode())
    lost = [f"{name}={value}" for name, value in sorted(dict(served.artifact.settings).items())]
    lost += [f"{served.threads} threads"] if target == "openvino" else []
    said = f"Triton's {target} backend is not told {', '.join(lost)}: set that there, or export triton-python."
    return [said] if lost else []


def _triton_python(served: Served, folder: Path) -> list[str]:
    artifact = served.artifact
    settings = {f"setting:{name}": value for name, value in sorted(dict(artifact.settings).items())}
    told = {"target": artifact.target, "entry": artifact.entry, "threads": str(served.threads), **settings}
    config = _config(served, "python", SERVER_FILE, told)
    version = folder / served.name / str(VERSION)
    _copy_files(served, version)
    shutil.copyfile(Path(__file__).with_name(PYTHON_MODEL), version / SERVER_FILE)
    write_atomic(folder / served.name / "config.pbtxt", config.text().encode())
    return [f"The server's Python needs edgedeploy, numpy and the runtime of {artifact.target}."]


def _ovms(served: Served, folder: Path) -> list[str]:
    artifact = served.artifact
    if artifact.target != "openvino":
        found = f"it runs OpenVINO, and {artifact.target!r} is what was measured"
        raise SpecError("an OpenVINO Model Server repository", found, "Export a variant of target openvino")
    _copy_files(served, folder / served.name / str(VERSION))
    config = {
        "name": served.name,
        "base_path": f"/models/{served.name}",
        "target_device": "CPU",
        "nireq": served.instances,
        "model_version_policy": {"specific": {"versions": [VERSION]}},
        "plugin_config": {
            **dict(artifact.settings),
            "NUM_STREAMS": str(served.instances),
            "INFERENCE_NUM_THREADS": str(served.threads * served.instances),
        },
    }
    write_json(folder / "config.json", {"model_config_list": [{"config": config}]})
    notes = [f"Mount {folder.name if not folder.name.startswith('.') else 'the folder'} at /models and start it there."]
    if served.max_batch > 1:
        notes.append("OpenVINO Model Server merges no requests: batches are the client's to make.")
    return notes


_WRITERS: Final[Mapping[str, Callable[[Served, Path], list[str]]]] = {
    "triton": _triton,
    "triton-python": _triton_python,
    "ovms": _ovms,
}

REPOSITORIES: Final = tuple(_WRITERS)


def _config(served: Served, backend: str, file: str, parameters: Mapping[str, str]) -> ModelConfig:
    batched = served.max_batch > 1
    unknown = sorted({spec.dtype for spec in (*served.artifact.inputs, *served.artifact.outputs)} - set(TYPES))
    if unknown:
        found = f"Triton has no name for tensors of {', '.join(unknown)}"
        raise SpecError("a Triton repository", found, "Export the artifact as it is")
    if any(not spec.shape for spec in (*served.artifact.inputs, *served.artifact.outputs)):
        raise SpecError(
            "a Triton repository", NO_AXES, "Give the tensor an axis of one, or export the artifact as it is"
        )
    return ModelConfig(
        name=served.name,
        backend=backend,
        file=file,
        inputs=[_port(spec, batched) for spec in served.artifact.inputs],
        outputs=[_port(spec, batched) for spec in served.artifact.outputs],
        version=VERSION,
        instances=served.instances,
        max_batch=served.max_batch if batched else 0,
        max_wait_us=served.max_wait_ns // 1000,
        queue=served.queue,
        parameters=parameters,
    )


def _port(spec: TensorSpec, batched: bool) -> Port:
    return Port(spec.name, spec.dtype, spec.shape[1:] if batched else spec.shape)


def _copy_files(served: Served, folder: Path) -> None:
    taken = [file.name for file in served.artifact.files if file.name == SERVER_FILE]
    if taken:
        raise SpecError("a repository of it", f"a file of the artifact is named {taken[0]}", "Copy it by hand")
    folder.mkdir(parents=True)
    for file in served.artifact.files:
        shutil.copyfile(served.built / file.name, folder / file.name)

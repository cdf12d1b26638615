"""Builds on other hosts: the workers of a Dask cluster that have no board build what a target builds.

A build travels as bytes with their hashes (reference, calibration inputs) to any such worker, and its files travel home,
where they are filed once under the hashes that the artifact names. A worker that is killed in the middle takes nothing with
it: Dask gives the build to another one, and when none is left the coordinator builds. So it does for a toolchain that the
worker lacks or has in another version: a study's artifacts come from one.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import BuildError, TargetUnavailable
from edgedeploy.interfaces.target import BuildRequest, FitsBoard, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.targets.registry import BUILTIN_TARGETS, find_targets

LOOK_S: Final = 2.0
"""How often the coordinator looks whether there is still a worker that could build."""

Files = Mapping[str, tuple[str, bytes]]
"""By name: SHA-256 and content."""


def build_elsewhere(
    client: Any, workers: Callable[[], Sequence[str]], target: Target, request: BuildRequest, folder: Path
) -> Artifact:
    """``target.build`` on one of ``workers()``, the addresses of those without a board; here when there is none.

    Raises what ``Target.build`` raises, and ``BuildError`` for a build that kills one worker after the other.
    """
    from distributed import KilledWorker

    able = workers()
    if not able or isinstance(target, FitsBoard):  # a worker has the target that fits no board
        return target.build(request, folder)
    future = client.submit(
        build_here,
        target.name,
        dict(target.probe().versions),
        pack_request(request),
        pure=False,
        workers=list(able),
        allow_other_workers=False,
    )
    try:
        answer = _wait(future, lambda: bool(set(able) & set(workers())))
    except TargetUnavailable:
        answer = None
    except KilledWorker as exc:
        asked = f"build {target.name} {request.precision} on the cluster"
        raise BuildError(asked, f"it killed its workers again and again: {exc}", "Give them more memory") from exc
    finally:
        future.cancel()
    if answer is None:
        return target.build(request, folder)
    artifact = Artifact.from_json(answer["artifact"])
    write_files({file.name: (file.sha256, answer["files"][file.name]) for file in artifact.files}, folder)
    return artifact


def _wait(future: Any, possible: Callable[[], bool]) -> Any:
    """The answer; None when the workers that could give it are gone, or the scheduler is."""
    while True:
        try:
            return future.result(timeout=LOOK_S)
        except CancelledError:
            return None
        except TimeoutError:
            if future.done():  # it was the build's own, or the answer came just now
                return future.result()
            if not possible():
                return None


def build_here(name: str, versions: Mapping[str, str], packed: Mapping[str, Any]) -> dict[str, Any]:
    """On a worker. Raises what ``Target.build`` raises, ``TargetUnavailable`` for other versions than the coordinator's."""
    found = [plugin for plugin in find_targets(BUILTIN_TARGETS) if plugin.name == name]
    if not found:
        raise TargetUnavailable(f"target {name!r} on a worker", "its plugin is not installed", "Install it there")
    target = found[0].load()
    readiness = target.probe()
    if not readiness.ready or dict(readiness.versions) != dict(versions):
        raise TargetUnavailable(f"target {name!r} on a worker", readiness.found, readiness.remedy)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-build-") as folder:
        given, made = Path(folder, "given"), Path(folder, "made")
        given.mkdir()
        made.mkdir()
        artifact = target.build(unpack_request(packed, given), made)
        return {
            "artifact": artifact.as_json(),
            "files": {file.name: (made / file.name).read_bytes() for file in artifact.files},
        }


def pack_request(request: BuildRequest) -> dict[str, Any]:
    """A request as plain data and bytes: the reference with the files beside it, and all calibration inputs."""
    buffer = io.BytesIO()
    rows = list(request.calibration())
    arrays: dict[str, Any] = {f"{index} {name}": value for index, row in enumerate(rows) for name, value in row.items()}
    np.savez(buffer, **arrays)
    wanted = [path for path in request.reference.parent.iterdir() if path.name.startswith(request.reference.stem)]
    wanted += [request.program] if request.program is not None else []
    return {
        "files": {path.name: _hashed(path.read_bytes()) for path in wanted},
        "calibration": _hashed(buffer.getvalue()),
        "cases": len(rows),
        "reference": request.reference.name,
        "program": request.program.name if request.program is not None else None,
        "inputs": [spec.as_json() for spec in request.inputs],
        "outputs": [spec.as_json() for spec in request.outputs],
        "precision": request.precision,
        "seed": request.seed,
        "plan": request.plan.as_json(),
        "calibrator": request.calibrator,
        "quantized": request.quantized,
        "weight_bits": request.weight_bits,
    }


def unpack_request(packed: Mapping[str, Any], folder: Path) -> BuildRequest:
    """The request again, its files in ``folder``. Raises ``BuildError`` for what arrived damaged."""
    calibration = folder / "calibration.npz"
    write_files({**packed["files"], calibration.name: packed["calibration"]}, folder)

    def rows() -> Iterator[dict[str, Array]]:
        with np.load(calibration, allow_pickle=False) as data:
            for index in range(packed["cases"]):
                mark = f"{index} "
                yield {name.removeprefix(mark): data[name] for name in data.files if name.startswith(mark)}

    request = BuildRequest(
        reference=folder / packed["reference"],
        inputs=tuple(TensorSpec.from_json(item) for item in packed["inputs"]),
        outputs=tuple(TensorSpec.from_json(item) for item in packed["outputs"]),
        precision=packed["precision"],
        calibration=rows,
        seed=packed["seed"],
        plan=PrecisionPlan.from_json(packed["plan"]),
        calibrator=packed["calibrator"],
        quantized=packed["quantized"],
        weight_bits=packed["weight_bits"],
    )
    return replace(request, program=folder / packed["program"]) if packed["program"] else request


def write_files(files: Files, folder: Path) -> None:
    """Raises ``BuildError`` for a content that is not what its hash says."""
    for name, (sha256, content) in files.items():
        if hashlib.sha256(content).hexdigest() != sha256 or Path(name).name != name:
            raise BuildError(f"a build on the cluster: {name!r}", "it arrived damaged", "Check the network")
        (folder / name).write_bytes(content)


def _hashed(content: bytes) -> tuple[str, bytes]:
    return hashlib.sha256(content).hexdigest(), content

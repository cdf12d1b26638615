"""Jobs, results and files as bytes between hosts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgedeploy.errors import BuildError, CommandFailed
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.job import Job, Payload, RawRun
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.runtime.wire.job import MeasurePlan
from edgedeploy.runtime.wire.result import RawSeries
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json

T = TypeVar("T")


def pack(job: Job) -> dict[str, Any]:
    """A job as plain data and bytes."""
    return {
        "plan": to_json(job.plan),
        "sides": {
            name: {
                "artifact": payload.artifact.as_json(),
                "files": {file.name: (payload.folder / file.name).read_bytes() for file in payload.artifact.files},
                "inputs": payload.inputs.read_bytes(),
                "threads": payload.threads,
                "states": dict(payload.states),
                "frames": payload.frames.read_bytes() if payload.frames is not None else None,
            }
            for name, payload in job.sides.items()
        },
    }


def unpack(packed: Mapping[str, Any], folder: Path) -> Job:
    """The job again, its files in ``folder``; file names are those of the artifact's own list.

    Raises ``CommandFailed`` for a job of another release."""
    payloads: dict[str, Payload] = {}
    for name, side in packed["sides"].items():
        artifact = Artifact.from_json(side["artifact"])
        place = folder / name
        place.mkdir()
        for file in artifact.files:
            (place / file.name).write_bytes(side["files"][file.name])
        inputs = folder / f"{name}-inputs.npz"
        inputs.write_bytes(side["inputs"])
        frames = folder / f"{name}-frames.npz" if side["frames"] is not None else None
        if frames is not None:
            frames.write_bytes(side["frames"])
        payloads[name] = Payload(artifact, place, inputs, side["threads"], side["states"], frames)
    return Job(payloads["candidate"], payloads.get("baseline"), _read(MeasurePlan, packed["plan"]))


def pack_result(raw: RawRun) -> dict[str, Any]:
    """What came back from a board as plain data and bytes."""
    return {"series": to_json(raw.series()), "outputs": raw.outputs.read_bytes() if raw.outputs else None}


def unpack_result(packed: Mapping[str, Any], folder: Path) -> RawRun:
    """The same again, its outputs in ``folder``. Raises ``CommandFailed`` for a result of another release."""
    series = _read(RawSeries, packed["series"])
    outputs = folder / "outputs.npz" if packed["outputs"] is not None else None
    if outputs is not None:
        outputs.write_bytes(packed["outputs"])
    return RawRun(**series.series(), outputs=outputs)


def _read(cls: type[T], data: Any) -> T:
    try:
        return from_json(cls, data)
    except WireError as exc:
        raise CommandFailed("a run on the cluster", str(exc), "Install one release of edgedeploy everywhere") from exc


Files = Mapping[str, tuple[str, bytes]]
"""By name: SHA-256 and content."""


def pack_request(request: BuildRequest) -> dict[str, Any]:
    """A request as plain data and bytes: the reference with the files beside it, and all calibration inputs."""
    buffer = io.BytesIO()
    rows = list(request.calibration())
    arrays: dict[str, Any] = {f"{index} {name}": value for index, row in enumerate(rows) for name, value in row.items()}
    np.savez(buffer, **arrays)
    beside = f"{request.reference.stem}."  # its weights; the graphs of tiles have longer stems
    wanted = [path for path in request.reference.parent.iterdir() if path.name.startswith(beside)]
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
        "quantizer": request.quantizer,
        "max_batch": request.max_batch,
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
        quantizer=packed["quantizer"],
        max_batch=packed["max_batch"],
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

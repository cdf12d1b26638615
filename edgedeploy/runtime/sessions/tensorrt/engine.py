"""Builds engines on the board from ONNX files and caches them there; a cached file that has changed is refused.

A TensorRT plan file is native code for one GPU, TensorRT and Jetson Linux. Its cache key covers all of these, the
model's hash and the build flags. One engine is built at a time, because the builder chooses kernels by timing them. The
builder's warnings are stored with the engine and printed to the job's log; the outputs show whether the network is
still correct.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import read_json, sha256_file, write_json

WORKSPACE_BYTES = 1 << 30
"""Limit of scratch memory for one kernel."""

KEPT_BYTES = 2 << 30
"""Limit of all cached engines; beyond it, the least recently used ones are removed."""

NAMED_TENSORS = (8, 5)
"""The first release whose Python API names tensors."""

STRONG_TYPES = 10
"""From this release on the file's types decide each layer's precision; before it, the builder chooses within flags."""

_FLAGS = {"float16": "FP16", "int8": "INT8"}


def cached_plan(trt: Any, log: Any, model: Path, precisions: Sequence[str], gpu: str) -> bytes:
    """The engine's bytes, from the cache or newly built. ``log`` is a logger made by ``make_logger``. Raises
    :class:`RuntimeFault` ``open_failed``."""
    facts = {
        "model_sha256": sha256_file(model),
        "tensorrt": str(trt.__version__),
        "gpu": gpu,
        "system": _system(),
        "precisions": sorted(precisions),
    }
    folder = engines_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    plan = folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.plan"
    note = plan.with_suffix(".json")
    with _alone(folder):
        if not note.exists():
            part = plan.with_suffix(".part")
            part.write_bytes(build(trt, log, model, precisions))
            part.replace(plan)
            write_json(note, {**facts, "plan_sha256": sha256_file(plan), "warnings": log.warnings})
            _make_room(folder, keep=plan)
        noted = read_json(note) or {}
        if {name: noted.get(name) for name in facts} != facts or noted.get("plan_sha256") != _sha256_if_there(plan):
            raise RuntimeFault("open_failed", f"{plan} is not what was built here: remove it and {note.name}")
        for warning in noted.get("warnings", ()):
            sys.stderr.write(f"TensorRT, when it built the engine: {warning}\n")
        os.utime(plan)
        return plan.read_bytes()


def build(trt: Any, log: Any, model: Path, precisions: Sequence[str]) -> bytes:
    """Parse and build. Raises :class:`RuntimeFault` ``open_failed`` with TensorRT's own words."""
    version = str(trt.__version__)
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < NAMED_TENSORS:
        raise RuntimeFault("open_failed", f"TensorRT {version} names no tensors in its Python API: 8.5 does, and newer")
    builder = trt.Builder(log)
    kinds = trt.NetworkDefinitionCreationFlag
    kind = getattr(kinds, "STRONGLY_TYPED" if major >= STRONG_TYPES else "EXPLICIT_BATCH", None)
    network = builder.create_network(
        0 if kind is None else 1 << int(kind)
    )  # 11 has strong types only, and no word for it
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)) or parser.num_errors:
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise RuntimeFault("open_failed", f"TensorRT {version} does not parse it: {'; '.join(errors)[:600]}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # or float32 convolutions keep 10 bits of mantissa on Ampere and newer
    if major < STRONG_TYPES:
        for name in precisions:
            if name in _FLAGS:
                config.set_flag(getattr(trt.BuilderFlag, _FLAGS[name]))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        found = "; ".join(log.errors)[:600] or "no reason given"
        raise RuntimeFault("open_failed", f"TensorRT {version} builds no engine: {found}")
    return bytes(plan)


def _make_room(folder: Path, keep: Path) -> None:
    plans = sorted(folder.glob("*.plan"), key=lambda path: path.stat().st_mtime_ns)
    kept_bytes = sum(path.stat().st_size for path in plans)
    for path in plans:
        if kept_bytes <= KEPT_BYTES:
            return
        if path != keep:
            kept_bytes -= path.stat().st_size
            path.with_suffix(".json").unlink(missing_ok=True)  # first, because a plan without it is built again
            path.unlink()


def _sha256_if_there(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def engines_folder(environment: Mapping[str, str] = os.environ) -> Path:
    cache = environment.get("EDGEDEPLOY_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "edgedeploy") / "engines"


def _system() -> str:
    """The release of Jetson Linux; empty on other machines, where an engine does not depend on the driver."""
    try:
        return Path("/etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace").partition(", GCID")[0]
    except OSError:
        return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

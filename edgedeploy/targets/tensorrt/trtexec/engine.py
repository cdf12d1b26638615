"""Builds engines on the board and caches them there under a key of everything they depend on.

A TensorRT plan file is native code for one GPU, TensorRT and JetPack. Only plans that this module built are loaded, and
only while key and hash equal those that it recorded.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import CommandFailed, MeasurementError
from edgedeploy.files import parsed
from edgedeploy.interfaces.board import Transport
from edgedeploy.records.variant import canonical_json, digest_of
from edgedeploy.runtime.files import sha256_file
from edgedeploy.targets.tensorrt.trtexec.board import TrtBoard, run_trtexec
from edgedeploy.targets.tensorrt.trtexec.command import build_command
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest, Placement, check_placement, read_placement

BUILD_TIMEOUT_S: Final = 1800.0
COMMAND_TIMEOUT_S: Final = 60.0
NOTE: Final = "engine.json"


class ForeignPlan(MeasurementError):
    """A plan that was not built here: it is never loaded."""


@dataclass(frozen=True)
class Engine:
    """``plan`` is its path on the board; ``cached`` whether it was there already; ``warnings`` are the builder's."""

    plan: str
    facts: Mapping[str, Any]
    cached: bool
    warnings: tuple[str, ...]
    placement: Placement | None
    build_log: str | None


def engine_facts(
    board: TrtBoard, model_sha256: str, precisions: Sequence[str], dla: DlaRequest | None
) -> dict[str, Any]:
    """Everything that the engine depends on: board, model, and the flags of its build."""
    flags = build_command("", board.version, onnx="", plan="", precisions=precisions, dla=dla)[3:]
    return {**board.as_json(), "model_sha256": model_sha256, "precisions": list(precisions), "flags": flags}


def ensure_engine(
    transport: Transport,
    board: TrtBoard,
    model: Path,
    *,
    precisions: Sequence[str],
    root: str,
    dla: DlaRequest | None = None,
) -> Engine:
    """The engine of a model on this board, from the cache under ``root`` (edgedeploy's folder there) or newly built.

    Raises :class:`ForeignPlan`, ``LogRefused`` (the build failed), ``Unsupported`` (nothing runs on DLA), ``BoardError``.
    """
    facts = engine_facts(board, sha256_file(model), precisions, dla)
    folder = f"{root}/engines/{digest_of(facts)[:32]}"
    return _cached(transport, folder, facts) or _build(transport, board, model, precisions, folder, facts, dla)


def _cached(transport: Transport, folder: str, facts: Mapping[str, Any]) -> Engine | None:
    data = transport.read_bytes(f"{folder}/{NOTE}", timeout_s=COMMAND_TIMEOUT_S)
    if data is None:
        return None
    plan = f"{folder}/model.plan"
    try:
        note = parsed(data)
        noted = canonical_json(note["facts"]) == canonical_json(facts)
        differs = sorted(name for name in facts if note["facts"].get(name) != facts[name])
        plan_sha256, log = str(note["plan_sha256"]), str(note["log"])
        warnings, dla_asked = tuple(map(str, note["warnings"])), bool(note["dla"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ForeignPlan(
            plan, f"the note beside it is damaged: {exc!r}", f"Remove {folder}; it is built again"
        ) from exc
    if not noted:
        raise ForeignPlan(plan, f"it was built for another {', '.join(differs)}", f"Remove {folder}; it is built again")
    if _sha256(transport, plan) != plan_sha256:
        raise ForeignPlan(plan, "its bytes are not those that were built here", f"Remove {folder}; it is built again")
    return Engine(plan, facts, True, warnings, read_placement(log) if dla_asked else None, log)


def _build(
    transport: Transport,
    board: TrtBoard,
    model: Path,
    precisions: Sequence[str],
    folder: str,
    facts: Mapping[str, Any],
    dla: DlaRequest | None,
) -> Engine:
    part = f"{folder}.part-{uuid.uuid4().hex}"
    require_command(transport, ["mkdir", "-p", "-m", "700", part])
    try:
        onnx, plan = f"{part}/model.onnx", f"{part}/model.plan"
        transport.put(model, onnx, timeout_s=COMMAND_TIMEOUT_S + model.stat().st_size / 200_000)
        argv = build_command(board.trtexec, board.version, onnx=onnx, plan=plan, precisions=precisions, dla=dla)
        run = run_trtexec(transport, argv, timed=False, timeout_s=BUILD_TIMEOUT_S)
        seen = run.compute_capability
        if board.compute_capability is not None and seen is not None and seen != board.compute_capability:
            found = f"the build ran on compute capability {seen}"
            raise MeasurementError(
                f"a GPU of compute capability {board.compute_capability}", found, "Probe the board again"
            )
        placement = read_placement(run.text) if dla else None
        if placement is not None:
            check_placement(placement)
        note = {
            "facts": facts,
            "plan_sha256": _sha256(transport, plan),
            "warnings": run.warnings,
            "dla": dla is not None,
            "log": run.text,
        }
        transport.write_bytes(f"{part}/{NOTE}", json.dumps(note).encode(), timeout_s=COMMAND_TIMEOUT_S)
        require_command(transport, ["mv", "-T", part, folder])
    finally:
        transport.run(["rm", "-rf", part], timeout_s=COMMAND_TIMEOUT_S)
    return Engine(f"{folder}/model.plan", facts, False, run.warnings, placement, run.text)


def require_command(transport: Transport, argv: list[str]) -> bytes:
    """A command's output. Raises ``CommandFailed`` for any other exit status than 0."""
    done = transport.run(argv, timeout_s=COMMAND_TIMEOUT_S)
    if done.exit_status != 0:
        said = (done.stderr or done.stdout).decode("utf-8", errors="replace").strip()[-300:]
        raise CommandFailed(f"run {' '.join(argv[:2])} on the board", said or f"exit status {done.exit_status}", "")
    return done.stdout


def _sha256(transport: Transport, path: str) -> str:
    return require_command(transport, ["sha256sum", path]).decode().split()[0]

"""The command line of a product: ``python -m edgedeploy.runtime COMMAND``, with the standard library alone.

    verify BUNDLE --trust KEY                who signed it, and that it is whole
    activate BUNDLE --trust KEY --root DIR   make it the device's current release
    activate --previous --trust KEY --root DIR   go back to the release before
    run BUNDLE --trust KEY [--frames FRAME.npy ...]   load it (golden vectors pass), and take frames through it

``--unsigned`` in the place of ``--trust KEY`` takes a bundle that nobody signed. One JSON value a line goes to standard
output, sentences to standard error. Exit status: 0; 2 for a bundle that is refused or a command that cannot be understood;
3 for a failure of the machine or its backend.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgedeploy.runtime.bundle.manifest import MOST_THREADS
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.runtime.faults import BundleError, RuntimeFault
from edgedeploy.runtime.files import print_json, tell, write_durably

REFUSED_STATUS = 2
FAULT_STATUS = 3


class UnfitFrame(Exception):
    """A frame that the model does not take: the caller's mistake."""


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "activate" and arguments.previous == (arguments.bundle is not None):
        parser.error("activate takes either a bundle or --previous")
    try:
        return _answered(arguments)
    except RuntimeFault as exc:
        tell(f"failed: {exc.message}")
        return FAULT_STATUS


def _answered(arguments: argparse.Namespace) -> int:
    """The exit status. Raises :class:`RuntimeFault` for a failure of the machine."""
    try:
        for answer in _answers(arguments):
            print_json(answer)
    except BundleError as exc:
        tell(f"refused: {exc}")
        print_json(exc.as_json())
        return REFUSED_STATUS
    except RuntimeFault as exc:
        if exc.cause != "output_lost":
            print_json(exc.as_json())
        raise
    except UnfitFrame as exc:
        tell(str(exc))
        return REFUSED_STATUS
    return 0


def _answers(arguments: argparse.Namespace) -> Iterator[Any]:
    """Modules are imported by the command that needs them: ``verify`` needs no numpy."""
    if arguments.command == "verify":
        yield _verified(arguments)
    elif arguments.command == "activate":
        yield _activated(arguments)
    else:
        yield from _run(arguments)


def _verified(arguments: argparse.Namespace) -> dict[str, Any]:
    found = verify(arguments.bundle, _trust(arguments), now=_now(arguments))
    head = {"name": found.manifest.name, "release": found.manifest.release, "identity": found.identity}
    return {"verified": True, **head, "signer": found.signer, "files": len(found.tree.files)}


def _activated(arguments: argparse.Namespace) -> dict[str, Any]:
    from edgedeploy.runtime.bundle.activate import activate, roll_back

    trust = _trust(arguments)
    if arguments.previous:
        return asdict(roll_back(trust=trust, root=arguments.root))
    return asdict(activate(arguments.bundle, trust=trust, root=arguments.root, now=_now(arguments)))


def _run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from edgedeploy.runtime.bundle.arrays import read_array
    from edgedeploy.runtime.bundle.load import load

    model = load(arguments.bundle, trust=_trust(arguments), threads=arguments.threads, now=_now(arguments))
    head = {"ready": model.name, "release": model.release, "identity": model.identity, "device": model.device}
    yield {**head, "proof": asdict(model.proof)}
    if arguments.out is not None:
        _require_room(arguments.frames, arguments.out)
    for path in arguments.frames:
        frame = read_array(_bytes(path), str(path))
        started_ns = time.perf_counter_ns()
        try:
            result = model(frame)
        except ValueError as exc:
            raise UnfitFrame(f"{path}: {exc}") from exc
        spent_ns = time.perf_counter_ns() - started_ns
        if arguments.out is not None:
            _keep(arguments.out / path.stem, result)
        arrays = result if isinstance(result, dict) else {"result": result}
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        yield {"frame": str(path), "shapes": shapes, "spent_ns": spent_ns}


def _require_room(frames: Sequence[Path], out: Path) -> None:
    """Raises ``UnfitFrame`` where a result would replace a frame, or another frame's result."""
    names = [path.stem for path in frames]
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise UnfitFrame(f"two frames are called {again[0]!r}, and their results would be one file of {out}")
    if any(path.resolve().parent == out.resolve() for path in frames):
        raise UnfitFrame(f"{out} holds the frames, and results would replace them: give another folder")


def _keep(path: Path, result: Any) -> None:
    """``.npy``, or ``.npz`` of a bundle that gives its outputs by name; whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    if isinstance(result, dict):
        np.savez(buffer, **result)
    else:
        np.save(buffer, result, allow_pickle=False)
    place = path.with_name(f"{path.name}.{'npz' if isinstance(result, dict) else 'npy'}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durably(place, buffer.getvalue())
    except OSError as exc:
        raise BundleError("unreadable", f"{place}: {exc.strerror or exc}", "Give --out a folder with room") from exc


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BundleError("unreadable", f"{path}: {exc.strerror}") from exc


def _trust(arguments: argparse.Namespace) -> str | None:
    return None if arguments.unsigned else str(arguments.trust)


def _now(arguments: argparse.Namespace) -> datetime | None:
    return datetime.now(timezone.utc) if arguments.check_date else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edgedeploy.runtime",
        description="Verify, activate and run bundles.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    verified = commands.add_parser("verify", help="who signed a bundle, and that it is whole")
    activated = commands.add_parser("activate", help="make a bundle the device's current release")
    ran = commands.add_parser("run", help="load a bundle and take frames through it")
    for command in (verified, activated, ran):
        command.add_argument("bundle", nargs="?" if command is activated else None, metavar="BUNDLE")
        key = command.add_mutually_exclusive_group(required=True)
        key.add_argument("--trust", metavar="KEY", help="public key (PEM) of who may have made it")
        key.add_argument("--unsigned", action="store_true", help="take a bundle that nobody signed")
        command.add_argument(
            "--check-date",
            action="store_true",
            help="refuse what its maker stands for no more, by this machine's clock",
        )
    activated.add_argument("--root", required=True, type=Path, metavar="DIR", help="where the device keeps releases")
    activated.add_argument("--previous", action="store_true", help="go back to the release before the current one")
    ran.add_argument("--frames", nargs="+", default=[], type=Path, metavar="FRAME.npy")
    ran.add_argument("--out", type=Path, metavar="DIR", help="where each result goes, by its frame's name")
    ran.add_argument("--threads", type=_count, metavar="N", help="threads of the backend; those that were measured")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 to {MOST_THREADS}")
    return int(text)

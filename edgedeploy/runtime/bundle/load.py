"""Opens a bundle: signature, compatibility, golden vectors, ready; or a refusal with its reason, and nothing in
between."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Callable

from edgedeploy.runtime.bundle import compatibility
from edgedeploy.runtime.bundle.golden import prove
from edgedeploy.runtime.bundle.manifest import ARTIFACT_FOLDER, MOST_THREADS, Manifest
from edgedeploy.runtime.bundle.model import Model
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.bundle.verify import Trust, Verified, verify
from edgedeploy.runtime.faults import BundleError, RuntimeFault
from edgedeploy.runtime.pipeline.steps import Detections, read_steps
from edgedeploy.runtime.sessions.clips import clip_outputs
from edgedeploy.runtime.sessions.open import Session, open_session

EXCHANGES = 3
"""How often a path may lead to another release while it is read, before it is refused."""

_BY_FAULT = {"disk_full": "unreadable", "run_failed": "wrong_answer"}
"""The reason for a fault of a backend; any other is ``incompatible``."""


def load(
    path: str | os.PathLike[str], *, trust: Trust, threads: int | None = None, now: datetime | None = None
) -> Model:
    """The bundle in the folder ``path``, ready: ``mask = load("bundle/", trust="lab.pem.pub")(frame)``.

    ``trust`` is the public key of who may have made it (a PEM file, or its bytes); None takes a bundle that nobody
    signed, and checks no signature. ``threads`` is how many the backend uses; those that were measured when it is not
    given.

    A bundle's last day (``not_after``) is held against ``now`` alone, which has a time zone: a device's clock may be wrong.

    Raises :class:`BundleError`, whose ``reason`` says why it is refused, ``ValueError`` for ``threads`` that are no number
    of 1 to :data:`MOST_THREADS`.
    """
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise ValueError(f"threads {threads!r}: 1 to {MOST_THREADS}, or None for those that were measured")
    return ready(_verified(path, trust, now), threads)


def _verified(path: str | os.PathLike[str], trust: Trust, now: datetime | None) -> Verified:
    """A path such as ``ROOT/current`` is followed once. Its release may be removed meanwhile, when two others were
    activated: then the path leads elsewhere, and that is read."""
    for _ in range(EXCHANGES):
        before = os.path.realpath(path)
        try:
            return verify(path, trust, now=now)
        except BundleError:
            if os.path.realpath(path) == before:
                raise
    return verify(path, trust, now=now)


def ready(verified: Verified, threads: int | None = None) -> Model:
    """What was verified, opened and proved on this machine. Raises as :func:`load`."""
    manifest = verified.manifest
    compatibility.check(manifest.compatibility, compatibility.look(manifest.compatibility.runtime.package))
    steps = read_steps(manifest.pipeline.input, manifest.pipeline.output)
    session = _open(verified.tree, manifest, threads or manifest.artifact.session.threads)
    model = Model(manifest, verified.identity, verified.signer, session, steps)
    of_boxes = bool(steps.output) and isinstance(steps.output[0], Detections)
    run = _runner(model, manifest.artifact.session.states)
    model.proof = prove(manifest.golden, verified.tree, run, model, of_boxes=of_boxes)
    return model


def _runner(model: Model, states: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Golden inputs of a network that carries state are a clip."""
    return (lambda inputs: clip_outputs(model.run, inputs, states)) if states else model.run


def _open(tree: Tree, manifest: Manifest, threads: int) -> Session:
    """A session of the very bytes that were hashed."""
    opened = manifest.artifact.session
    try:
        with _private_copy(tree, manifest.artifact.files) as folder:
            return open_session(manifest.target, folder, opened.entry, opened.settings, threads)
    except RuntimeFault as exc:
        raise BundleError(_BY_FAULT.get(exc.cause, "incompatible"), f"{manifest.target}: {exc.message}") from exc
    except OSError as exc:
        raise BundleError("unreadable", f"its artifact cannot be laid out in {tempfile.gettempdir()}: {exc}") from exc


@contextlib.contextmanager
def _private_copy(tree: Tree, names: tuple[str, ...]) -> Iterator[Path]:
    """Backends open files by name. These are in a folder that only this user can enter, and gone once the session is
    open: a mapped file lives on without a name."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
        for name in names:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tree.read(f"{ARTIFACT_FOLDER}/{name}"))
        yield Path(folder)

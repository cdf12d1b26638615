"""How a target of another package builds: :func:`build_artifact` keeps the duties of ``Target.build`` for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy.errors import TargetUnavailable, Unsupported
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import describe
from edgedeploy.reference.translate import nodes_named, translated
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.common import calibration_feeds, check_outputs, no_cases, probe_feed, staged_artifact

_OF_THE_FILES = ("open_failed", "run_failed")
"""Faults that say something about the artifact; all others are of this host."""


def build_artifact(
    target: Target,
    request: BuildRequest,
    folder: Path,
    entry: str,
    write: Callable[[BuildRequest, Path], Mapping[str, str]],
    *,
    run_here: bool = True,
) -> Artifact:
    """Everything of ``Target.build`` but ``write``, the target's own part: it gets the request and an empty folder,
    writes the files (``entry`` among them) and returns what the session gets as ``settings``.

    - The toolchain, the precision and what else is asked for are checked first.
    - ``folder`` is made where it is absent and refused where it is not empty. A build that fails leaves nothing in it.
    - A reference that is no valid ONNX model is a ``BuildError`` with the file's name.
    - What the toolchain raises becomes ``Unsupported``, with the node where it names an operator alone. Errors of
      edgedeploy, ``OSError`` and ``MemoryError`` pass unchanged.
    - The ``calibration`` of the request that ``write`` gets yields one case at a time, checked: ``DataError`` for none
      at all, a wrong name, shape or type, and NaN.
    - The files are opened in the target's session and run once on this host: outputs with other names or shapes, and NaN
      or infinite ones, are ``Unsupported``. ``run_here=False`` leaves that out, for a runtime that this host cannot
      have; such outputs are then found on the board.

    Left to ``write``: equal files from equal requests (seed what is random with ``request.seed``), silence on the
    terminal, and to refuse a precision that would narrow no layer of the model.
    """

    def checked_write(scratch: Path, versions: dict[str, str]) -> Mapping[str, str]:
        describe(request.reference, own=True)
        asked = f"{request.reference.name} in {request.precision} by target {target.name!r}"
        with nodes_named(request.reference), translated(asked, "Replace the operator it names", Unsupported):
            settings = write(replace(request, calibration=lambda: _cases(request)), scratch)
            if run_here:
                _run_once(target, request, scratch, entry, settings)
        return settings

    return staged_artifact(target, request, folder, entry, checked_write)


def _cases(request: BuildRequest) -> Iterator[dict[str, Array]]:
    empty = True
    for feed in calibration_feeds(request):
        empty = False
        yield feed
    if empty:
        raise no_cases(request.precision)


def _run_once(target: Target, request: BuildRequest, folder: Path, entry: str, settings: Mapping[str, str]) -> None:
    """On a copy: what a runtime writes beside its model is no part of the artifact."""
    with TemporaryDirectory() as desk:
        copy = shutil.copytree(folder, Path(desk, "model"))
        try:
            session = open_session(target.name, copy, entry, dict(settings), 1, target.session)
            outputs = session.run(probe_feed(request))
        except RuntimeFault as fault:
            if fault.cause in _OF_THE_FILES:
                raise
            asked = f"one inference by target {target.name!r} on this host"
            remedy = f"pip install {target.session.packages[0]}, or free memory and disk"
            raise TargetUnavailable(asked, fault.message, remedy) from fault
    check_outputs(f"the {request.precision} model", outputs, request.outputs)

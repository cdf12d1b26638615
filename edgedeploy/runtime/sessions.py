"""Opens an artifact in its own runtime. The backend is imported here and nowhere earlier."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from edgedeploy.runtime.faults import RuntimeFault, from_exception

OPENERS = {
    "litert": "edgedeploy.runtime.session_litert",
    "onnxruntime": "edgedeploy.runtime.session_onnxruntime",
    "openvino": "edgedeploy.runtime.session_openvino",
}
"""Target name -> module with an ``open_model`` function. A new target is one more line and one more file."""

Feeds = Mapping[str, Any]


class Session(Protocol):
    """A model that is loaded and ready. A protocol because each backend brings its own.

    ``device`` names what ran it, ``version`` the backend's release.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    device: str
    version: str

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """One inference: arrays by input name in, arrays by output name out (the caller's own memory).

        Raises :class:`RuntimeFault` (``run_failed``, ``memory_exceeded``).
        """

    def executed(self) -> dict[str, int]:
        """Compute layers (convolutions and matrix products) by the precision that really ran, such as
        ``{"int8": 40, "float32": 1}``."""


def open_session(target: str, folder: Path, entry: str, settings: Mapping[str, str], threads: int) -> Session:
    """Load ``folder/entry``. ``settings`` are the artifact's own and go to the backend as they are.

    Raises :class:`RuntimeFault`: ``runtime_missing`` (no such backend here), ``open_failed``, ``memory_exceeded``.
    """
    if target not in OPENERS:
        raise RuntimeFault("runtime_missing", f"no session for target {target!r}; known: {', '.join(sorted(OPENERS))}")
    path = folder / entry
    if not path.is_file():
        raise RuntimeFault("open_failed", f"{path} does not exist")
    try:
        module = importlib.import_module(OPENERS[target])
        return cast(Session, module.open_model(path, settings, threads))
    except Exception as exc:  # a backend's own exceptions have no common base
        raise from_exception(exc, "open_failed") from exc

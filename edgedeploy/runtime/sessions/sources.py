"""Where each target's session lies and what a board needs for it: the one table that probe, worker and targets read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgedeploy.runtime.sessions import thirdparty

SESSIONS = __name__.rpartition(".")[0]


@dataclasses.dataclass(frozen=True)
class SessionSource:
    """What a target declares of its session.

    ``module`` is the dotted name of a module or package with ``open_model(path, settings, threads)``, which returns a
    :class:`~edgedeploy.runtime.sessions.open.Session`; it may have ``import_runtime()``, which imports the runtime alone.
    ``packages`` are the distributions that bring its runtime to a board, of which one is enough; the first is the one to
    recommend. ``built_on_board``: what it runs is built when it is
    opened for the first time, which is no part of a cold start.
    """

    module: str
    packages: tuple[str, ...]
    built_on_board: bool = False


BUILTIN = {
    "litert": SessionSource(f"{SESSIONS}.litert.session", ("ai-edge-litert", "tflite-runtime")),
    "onnxruntime": SessionSource(f"{SESSIONS}.onnxruntime", ("onnxruntime", "onnxruntime-gpu")),
    "openvino": SessionSource(f"{SESSIONS}.openvino", ("openvino",)),
    "tensorrt": SessionSource(f"{SESSIONS}.tensorrt.session", ("tensorrt",), built_on_board=True),
}
"""By the names of the targets that come with the package, whose classes declare these very rows."""


def known() -> Mapping[str, SessionSource]:
    """By target: the package's own, and in a packed agent those that were packed along."""
    return {**{target: SessionSource(*row) for target, row in thirdparty.ROWS.items()}, **BUILTIN}

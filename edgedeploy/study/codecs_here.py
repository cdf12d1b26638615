"""Whether a study's image codecs can be tried: by its task, on this host and on its boards."""

from __future__ import annotations

from importlib import util

from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces.task import Piped, Task
from edgedeploy.records.board import BoardInfo
from edgedeploy.spec.codecs import codecs_of
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.coded import INSTALL


def check_codecs_here(source: SpecSource, spec: StudySpec, task: Task) -> None:
    """Raises ``SpecError`` for a task whose inputs are not made of images, ``TargetUnavailable`` without imagecodecs, or
    without zstandard where weights are shipped by it."""
    if "int8-zstd" in spec.space.get("storage", ()) and util.find_spec("zstandard") is None:
        raise TargetUnavailable("space.storage", "zstandard is not installed here", INSTALL)
    if "image_codec" not in spec.space:
        return
    if not isinstance(task, Piped):
        found = f"task {task.name!r} declares no steps that make its inputs of images"
        raise source.error("space.image_codec", found, "Give it a pipeline and frames (Piped), or remove the codecs")
    if codecs_of(spec.space) and util.find_spec("imagecodecs") is None:
        raise TargetUnavailable("space.image_codec", "imagecodecs is not installed here", INSTALL)


def require_codecs(spec: StudySpec, info: BoardInfo) -> None:
    """Raises ``TargetUnavailable`` for a board that has no decoder for what it is to decode inside a deadline."""
    wanted = codecs_of(spec.space)
    if not wanted or "realtime" not in spec.measure.scenarios or info.codecs:
        return
    found = f"it has no imagecodecs, and {', '.join(wanted)} are decoded there inside the deadline"
    raise TargetUnavailable(f"board {info.name!r}", found, "On the board: pip install imagecodecs")

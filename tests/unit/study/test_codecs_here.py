"""Whether a study's codecs can be tried: a board without their decoders is told before anything starts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import made_up
import pytest

from edgedeploy.errors import SpecError, TargetUnavailable
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.codecs_here import check_codecs_here, require_codecs


def spec(*codecs: str, scenarios: tuple[str, ...] = ("realtime",)) -> StudySpec:
    return cast(StudySpec, SimpleNamespace(space={"image_codec": codecs}, measure=SimpleNamespace(scenarios=scenarios)))


def test_a_board_without_imagecodecs_decodes_nothing() -> None:
    board = made_up.board(codecs="")
    with pytest.raises(
        TargetUnavailable, match=r"no imagecodecs, and jpegls are decoded there.*pip install imagecodecs"
    ):
        require_codecs(spec("none", "jpegls"), board)
    require_codecs(spec("none"), board)
    require_codecs(spec("jpegls", scenarios=()), board)
    require_codecs(spec("jpegls"), replace(board, codecs="2026.3.6"))


def test_a_task_of_no_images_has_no_codecs() -> None:
    def error(key: str, found: str, remedy: str) -> SpecError:
        return SpecError(key, found, remedy)

    source: Any = SimpleNamespace(error=error)
    task: Any = SimpleNamespace(name="tables")
    with pytest.raises(SpecError, match="declares no steps that make its inputs of images"):
        check_codecs_here(source, spec("jpegls"), task)

"""What a study tells its search of variants beforehand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_search import SPACE

from edgedeploy.study import knowledge
from edgedeploy.study.knowledge import Sizes, without_effect


def test_a_width_keeps_its_square_and_an_architecture_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def size_of(task: object, arch: object) -> dict[str, float]:
        asked.append(arch)
        return {"parameters": 1000.0, "macs": 8000.0}

    monkeypatch.setattr(knowledge, "size_of", size_of)
    sizes = Sizes(object())  # type: ignore[arg-type]
    whole = SPACE.baseline_variant("openvino")
    assert sizes.of(whole) == {"parameters": 1000, "macs": 8000, "bytes": 4000}
    half = replace(whole, width=0.5, precision="int8")
    assert sizes.of(half) == {"parameters": 250, "macs": 2000, "bytes": 250}
    assert asked == [{"resolution": 128}]


def test_a_task_without_sizes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "size_of", lambda task, arch: {})
    assert Sizes(object()).of(SPACE.baseline_variant("openvino")) == {}  # type: ignore[arg-type]


def test_threads_change_neither_accuracy_nor_size() -> None:
    assert "threads" in without_effect("dice_mean") and "calibration" not in without_effect("dice_mean")
    assert {"threads", "calibration"} <= without_effect("size_bytes")
    assert without_effect("latency_p50_ns") == frozenset()

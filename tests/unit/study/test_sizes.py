"""How large the variants of a space are: found of some architectures, estimated of all others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up_search import SPACE
from small_transformers import BlobTask, small_cnn

from edgedeploy.errors import SpecError
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar
from edgedeploy.search.space import Space
from edgedeploy.study import sizes as study_sizes
from edgedeploy.study.sizes import MOST_ARCHITECTURES, Sizes

SizeOf = Callable[[Mapping[str, Scalar]], Mapping[str, float]]

STAGES = ("a", "b", "c", "d")
CELLS = Space(
    targets=("onnxruntime",),
    parameters=dict.fromkeys(STAGES, (1, 2, 3, 4, 6)),
    arch_defaults=dict.fromkeys(STAGES, 6),
    target_precisions={"onnxruntime": ("float32",)},
    default_threads=1,
)
"""625 architectures."""


def sizes(monkeypatch: pytest.MonkeyPatch, size_of: SizeOf, space: Space) -> tuple[Sizes, list[Mapping[str, Scalar]]]:
    asked: list[Mapping[str, Scalar]] = []

    def counted(task: object, arch: Mapping[str, Scalar], *student: str) -> Mapping[str, float]:
        asked.append(arch)
        return size_of(arch)

    monkeypatch.setattr(study_sizes, "size_of", counted)
    return Sizes(object(), space), asked  # type: ignore[arg-type]


def cells(arch: Mapping[str, Scalar]) -> dict[str, float]:
    """Parameters add up, as of layers behind one another; multiply-accumulates multiply, as of widths and resolutions."""
    blocks = [float(arch[name]) for name in STAGES]
    return {"parameters": 100 + sum(10**n * count for n, count in enumerate(blocks)), "macs": 1e6 * math.prod(blocks)}


def test_a_width_keeps_its_square_and_an_architecture_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = sizes(monkeypatch, lambda arch: {"parameters": 1000.0, "macs": 8000.0, "depth": 12.0}, SPACE)
    whole = SPACE.baseline_variant("openvino")
    assert found.of(whole) == {"parameters": 1000, "macs": 8000, "bytes": 4000, "depth": 12}
    half = replace(whole, width=0.5, precision="int8")
    assert found.of(half) == {"parameters": 250, "macs": 2000, "bytes": 250, "depth": 12}
    assert found.of(replace(whole, shrink=Shrink(depth=0.75, mlp=0.5)))["depth"] == pytest.approx(9)
    assert asked == [{"resolution": 128}]


def test_a_task_without_sizes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for space in (SPACE, CELLS):
        found, _ = sizes(monkeypatch, lambda arch: {}, space)
        assert found.of(space.baseline_variant(space.targets[0])) == {}


def test_a_student_is_weighed_itself_and_fewer_tokens_are_less_work() -> None:
    task, whole = BlobTask(depth=2, cases=8), replace(SPACE.baseline_variant("openvino"), arch=(("kind", "joint"),))
    found = Sizes(task, SPACE)
    student = found.of(replace(whole, shrink=Shrink(student="cnn")))
    assert student["parameters"] == sum(value.numel() for value in small_cnn().parameters())
    fewer, all_of_it = found.of(replace(whole, shrink=Shrink(tokens=0.5))), found.of(whole)
    assert fewer["parameters"] == all_of_it["parameters"] > student["parameters"]
    assert fewer["macs"] == pytest.approx(2 / 3 * all_of_it["macs"])


def test_of_many_architectures_a_few_are_built_and_the_others_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = sizes(monkeypatch, cells, CELLS)
    errors: dict[str, list[float]] = {"parameters": [], "macs": []}
    for values in itertools.product(*CELLS.parameters.values()):
        params: dict[str, Any] = {"target": "onnxruntime", **dict(zip(STAGES, values, strict=True))}
        variant = CELLS.variant(params)
        for name, expected in cells(variant.arch_kwargs).items():
            errors[name].append(abs(found.of(variant)[name] / expected - 1))
    assert len(asked) == MOST_ARCHITECTURES and len({tuple(arch.items()) for arch in asked}) == len(asked)
    assert max(errors["parameters"]) < 0.01 and max(errors["macs"]) < 0.01
    again, _ = sizes(monkeypatch, cells, CELLS)
    assert again.of(variant) == found.of(variant)


def test_a_figure_that_can_hardly_be_estimated_is_left_out_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def size_of(arch: Mapping[str, Scalar]) -> dict[str, float]:
        longest = max(0 if arch[name] == 6 else int(arch[name]) ** 2 for name in STAGES)
        return cells(arch) | {"depth": 1.0 + longest}

    found, asked = sizes(monkeypatch, size_of, CELLS)
    for stage in (1, 3, 6):
        arch = {name: stage if name == "a" else 6 for name in STAGES}
        assert set(found.of(CELLS.variant({"target": "onnxruntime", **arch}))) == {"parameters", "macs", "bytes"}
    assert dict.fromkeys(STAGES, 6) in asked


def test_a_student_is_weighed_where_architectures_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = sizes(monkeypatch, cells, CELLS)
    whole = CELLS.baseline_variant("onnxruntime")
    assert found.of(whole)["macs"] == cells(whole.arch_kwargs)["macs"]
    found.of(replace(whole, shrink=Shrink(student="cnn")))
    assert len(asked) == MOST_ARCHITECTURES + 1


class Counting:
    """A task in as much as it says how large its architectures are."""

    def __init__(self, figures: object = None) -> None:
        self.told = figures

    def figures(self, **arch: Scalar) -> Any:
        return cells(arch) | {"paths": 3} if self.told is None else self.told


def test_what_a_task_says_of_an_architecture_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = sizes(monkeypatch, cells, CELLS)
    variant = CELLS.variant({"target": "onnxruntime", "a": 1, "b": 2, "c": 3, "d": 4})
    found = Sizes(Counting(), CELLS).of(variant)  # type: ignore[arg-type]
    assert found == {**cells(variant.arch_kwargs), "paths": 3, "bytes": 4 * cells(variant.arch_kwargs)["parameters"]}
    assert not asked


@pytest.mark.parametrize(
    "told",
    [{"macs": 0}, {"macs": True}, {"macs": 10**400}, {"macs": float("nan")}, {"macs": "many"}, {3: 4.0}, 1e6, [1.0]],
)
def test_what_is_no_figure_is_told_with_its_architecture(told: object) -> None:
    with pytest.raises(SpecError, match=r"figures\(a = 6, b = 6") as caught:
        Sizes(Counting(told), CELLS)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400, "of a number of hundreds of digits not each"


def test_a_number_of_numpy_is_a_figure() -> None:
    told = {"macs": np.int64(3), "paths": np.float32(2.5)}
    found = Sizes(Counting(told), CELLS).of(CELLS.baseline_variant("onnxruntime"))  # type: ignore[arg-type]
    assert found == {"macs": 3.0, "paths": 2.5}


@pytest.mark.filterwarnings("error")
def test_networks_without_weights_are_of_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = sizes(monkeypatch, lambda arch: {"macs": 3.0, "parameters": 0.0 if arch["a"] == 1 else 5.0}, CELLS)
    assert set(found.of(CELLS.baseline_variant("onnxruntime"))) == {"macs"}


def test_figures_that_fail_are_told_with_their_architecture() -> None:
    class Failing(Counting):
        def figures(self, **arch: Scalar) -> Any:
            raise KeyError("e")

    with pytest.raises(SpecError, match=r"figures\(a = 6, b = 6.*KeyError: 'e'"):
        Sizes(Failing(), CELLS)  # type: ignore[arg-type]

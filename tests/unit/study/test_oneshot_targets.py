"""The target and precision that a one-shot command names: what is meant by a slip, and what there is."""

from __future__ import annotations

import pytest

from edgedeploy.errors import SpecError, closest, nearest
from edgedeploy.records.precision import nearest_layer
from edgedeploy.study.oneshot.desk import target_named

pytestmark = pytest.mark.beside


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        ("int7", "Did you mean 'int8'? It builds: float32, "),
        ("quarter", "It builds: float32, "),
        ("bfloat16", "It builds: float32, "),
    ],
)
def test_a_precision_that_is_not_built_is_answered_with_all_that_are(precision: str, remedy: str) -> None:
    with pytest.raises(SpecError) as told:
        target_named("onnxruntime", precision)
    assert told.value.remedy.startswith(remedy)


def test_the_closest_name_is_an_answer_of_its_own() -> None:
    known = ["Known: all", "Did you mean"]
    assert closest("Known all", known) == "Known: all"
    assert closest("something else", known) is None
    assert nearest("Known all", known) == "Did you mean 'Known: all'?"
    assert nearest("q", ["b", "a"]) == "Known: a, b."
    assert nearest_layer("conv_1", ["conv_2", "relu"]) == "Did you mean 'conv_2'?"
    assert nearest_layer("q", ["conv_2", "relu"]) == "Layers are named conv_2, relu ..."

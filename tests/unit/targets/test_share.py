"""The share of linear weights that a build of weights alone narrowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from small_onnx import convolutional, transformer_block

from edgedeploy.errors import Unsupported
from edgedeploy.records.precision import NO_RULES, PrecisionPlan, assign
from edgedeploy.reference.layers import layers_of, name_nodes
from edgedeploy.targets.share import check_share, linear_weights


def parts(path: Path, plan: PrecisionPlan = NO_RULES) -> tuple[Any, Any]:
    source = onnx.load(str(path))
    name_nodes(source)
    return source, assign(plan, layers_of(source), "int8-weights")


def test_weights_are_counted_by_numbers(tmp_path: Path) -> None:
    source, assignment = parts(transformer_block(tmp_path / "m.onnx"))
    assert linear_weights(source, assignment) == {"/mlp/fc1": 64 * 128, "/mlp/fc2": 128 * 64}
    check_share("int8-weights", source, assignment, {"/mlp/fc1", "/mlp/fc2", "/mlp/add"})
    with pytest.raises(Unsupported, match=r"50% were converted; the largest of 1 that stayed: /mlp/fc2"):
        check_share("int8-weights", source, assignment, {"/mlp/fc1"})
    with pytest.raises(Unsupported, match=r"0% were converted.* /mlp/fc1, /mlp/fc2"):
        check_share("int8-weights", source, assignment, set())


def test_layers_of_a_plan_and_other_precisions_do_not_count(tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    source, assignment = parts(path, PrecisionPlan.of({"/mlp/fc2": "float32"}))
    check_share("int8-weights", source, assignment, {"/mlp/fc1"})
    check_share("int8", source, assignment, set())


def test_a_network_without_linear_weights_is_no_business_of_the_share(tmp_path: Path) -> None:
    source, assignment = parts(convolutional(tmp_path / "m.onnx"))
    assert linear_weights(source, assignment) == {}
    check_share("int8-weights", source, assignment, set())

"""Precision plans on LiteRT: single layers of a network in another precision than the rest, seen in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.precision import Assignment, PrecisionPlan
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.runtime.sessions.litert.session import LiteRtSession
from edgedeploy.targets.litert.layers import LayerPlan, Operation
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.testing import models
from edgedeploy.testing.models import Model
from edgedeploy.testing.targets import compared

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_converter")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Model:
    readiness = LiteRtTarget().probe()
    if not readiness.ready:
        pytest.skip(f"{readiness.found} ({readiness.remedy})")
    return models.two_heads(tmp_path_factory.mktemp("model"))


def layer(network: Model, weight: str) -> str:
    """The reference's node that uses a weight of the torch module."""
    nodes = onnx.load(str(network.reference.path)).graph.node
    return next(node.name for node in nodes if weight in node.input)


def planned(network: Model, precision: str, rules: dict[str, str]) -> BuildRequest:
    return replace(network.request(precision), plan=PrecisionPlan.of(rules))


@pytest.mark.parametrize(
    ("base", "own", "expected"),
    [
        ("int8", "float32", ["int8", "int8", "int8", "int8", "float32", "int8", "int8"]),
        ("float32", "int8", ["float32", "float32", "float32", "float32", "int8", "float32", "float32"]),
        ("int8", "float16", ["int8", "int8", "int8", "int8", "float16-weights", "int8", "int8"]),
        ("float16", "float32", [*["float16-weights"] * 4, "float32", *["float16-weights"] * 2]),
    ],
)
def test_one_layer_gets_a_precision_of_its_own(
    base: str, own: str, expected: list[str], network: Model, tmp_path: Path
) -> None:
    request = planned(network, base, {layer(network, "mask.weight"): own})
    artifact = LiteRtTarget().build(request, tmp_path)
    session = LiteRtSession(tmp_path / artifact.entry, dict(artifact.settings), 1)
    assert session.layer_precisions() == expected
    check_executed(base, session.executed(), request.plan.precisions)
    check_parity(*compared(network, session, list(models.images(seed=2, count=4))), base, own)


def test_a_layer_that_is_not_there_is_an_error(network: Model, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no layer has that name"):
        LiteRtTarget().build(planned(network, "int8", {"decoder.*": "float32"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_cannot_be_told_in_the_file_is_refused(network: Model, tmp_path: Path) -> None:
    nodes = onnx.load(str(network.reference.path)).graph.node
    pool = next(node.name for node in nodes if node.op_type == "MaxPool")
    with pytest.raises(Unsupported, match="no constant weights"):
        LiteRtTarget().build(planned(network, "int8", {pool: "float32"}), tmp_path)


def test_four_bit_weights_are_refused_by_name(network: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"int4-weights.*float32, float16, int8"):
        LiteRtTarget().build(planned(network, "float32", {layer(network, "mask.weight"): "int4-weights"}), tmp_path)


def test_what_the_quantizer_left_out_is_told() -> None:
    rule = PrecisionPlan.of({"head": "int8"}).rules[0]
    found = LayerPlan(
        Assignment({"head": "int8", "body": "float32"}, {"head": rule}, frozenset({"head", "body"})),
        "float32",
        (Operation("a;", ("body",)), Operation("b;", ("head",))),
    )
    found.check(["float32", "int8"])
    with pytest.raises(Unsupported, match=r"'head' in int8.*float32"):
        found.check(["float32", "float32"])
    with pytest.raises(BuildError, match="1 compute layers, 2 before"):
        found.check(["float32"])

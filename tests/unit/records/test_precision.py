"""From a plan and a list of layers to the precision of each, and from proposals to canonical variants."""

from __future__ import annotations

import pytest

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.records.canonical import Choices, canonical
from edgedeploy.records.precision import Layer, PrecisionPlan, assign
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.space import Space

LAYERS = (
    Layer("/enc/conv", "Conv", True),
    Layer("/enc/norm", "BatchNormalization", False),
    Layer("/dec/conv[0]", "Conv", True),
    Layer("/head", "Conv", True),
)
CHOICES = Choices(
    plans={
        "head": PrecisionPlan.of({"/head": "float32"}),
        "mixed": PrecisionPlan.of({"/enc/*": "int8", "/head": "bfloat16", "*": "float32"}),
    },
    layers={"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")},
    calibrations={"onnxruntime": ("minmax", "percentile"), "openvino": ("mean-minmax", "minmax", "mse")},
    cases=10,
)
PRECISIONS = dict.fromkeys(("onnxruntime", "openvino", "litert"), ("float32", "int8"))


def make(target: str = "onnxruntime", **params: Scalar) -> Variant:
    return canonical(
        {"target": target, **params},
        arch_defaults={},
        target_precisions=PRECISIONS,
        default_threads=2,
        choices=CHOICES,
    )


def test_the_first_rule_that_fits_decides_and_the_rest_keeps_the_base() -> None:
    found = assign(PrecisionPlan.of({"/enc/conv": "bfloat16", "/enc/*": "float32"}), LAYERS, "int8")
    assert found.precisions == {
        "/enc/conv": "bfloat16",
        "/enc/norm": "float32",
        "/dec/conv[0]": "int8",
        "/head": "int8",
    }


def test_a_name_with_brackets_is_a_name() -> None:
    assert assign(PrecisionPlan.of({"/dec/conv[0]": "float32"}), LAYERS, "int8").precisions["/dec/conv[0]"] == "float32"


@pytest.mark.parametrize(
    ("rules", "error", "told"),
    [
        ({"/hed": "float32"}, BuildError, "no layer has that name.*Did you mean '/head'"),
        ({"/head*": "float32", "/head": "int8"}, BuildError, "rules before it decide"),
        ({"/enc/norm": "int8"}, Unsupported, "no constant weights"),
    ],
)
def test_a_rule_without_effect_is_an_error(rules: dict[str, str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        assign(PrecisionPlan.of(rules), LAYERS, "float32")


def test_what_is_fused_follows_the_layer_with_weights() -> None:
    found = assign(PrecisionPlan.of({"/enc/conv": "float32", "/enc/norm": "bfloat16"}), LAYERS, "int8")
    assert found.of(("/enc/norm", "/enc/conv"), "int8") == "float32"
    assert found.of(("/head",), "int8") == "int8"
    torn = assign(PrecisionPlan.of({"/enc/conv": "float32", "/head": "bfloat16"}), LAYERS, "int8")
    with pytest.raises(Unsupported, match="run as one"):
        torn.of(("/enc/conv", "/head"), "int8")


def test_a_plan_that_changes_nothing_is_no_plan() -> None:
    assert make(plan="head") == make()
    assert make(precision="int8", plan="head") != make(precision="int8")
    assert make(plan="none") == make()
    assert make("litert", precision="int8", plan="head") == make("litert", precision="int8")


def test_rules_a_target_cannot_follow_go() -> None:
    assert make(plan="mixed").plan == PrecisionPlan.of({"/enc/*": "int8"})
    assert make("openvino", plan="mixed").plan == PrecisionPlan.of({"/enc/*": "int8", "/head": "bfloat16"})


def test_calibration_is_part_of_a_variant_only_where_it_matters() -> None:
    assert make(calibration="percentile", calibration_cases=4) == make()
    assert make(precision="int8", calibration="minmax", calibration_cases=10) == make(precision="int8")
    assert make(precision="int8", calibration="mse") == make(precision="int8")
    assert make("openvino", precision="int8", calibration="mse") != make("openvino", precision="int8")
    narrowed = make(plan="mixed", calibration="percentile", calibration_cases=4)
    assert (narrowed.precision, narrowed.calibration, narrowed.calibration_cases) == ("float32", "percentile", 4)


def test_a_variant_with_settings_survives_json_and_has_an_artifact_of_its_own() -> None:
    variant = make("openvino", precision="int8", plan="head", calibration="mse", calibration_cases=4)
    assert Variant.from_json(variant.as_json()) == variant
    plain = make("openvino", precision="int8")
    assert plain.artifact_name != variant.artifact_name
    assert plain.model_digest == variant.model_digest
    assert "/head=float32" in variant.label
    assert "plan" not in plain.as_json(), "variants that were measured before these settings keep their digest"


def test_no_variant_of_the_space_stands_for_two_builds() -> None:
    space = Space(
        targets=("onnxruntime", "openvino"),
        parameters={
            "precision": ("float32", "int8"),
            "plan": ("none", "head"),
            "calibration": ("minmax", "percentile", "mse"),
            "calibration_cases": (4, 10, 100),
        },
        arch_defaults={},
        target_precisions=PRECISIONS,
        default_threads=2,
        choices=CHOICES,
    )
    found = {space.variant(params) for params in space.combinations()}
    # onnxruntime: min-max or percentile; openvino: min-max or mse, and its own for what it lacks; 4 cases or all
    assert len(found) == (1 + 2 * 2 * 2) + (1 + 2 * 3 * 2)
    assert len({variant.artifact_name for variant in found}) == len(found)
    assert space.baseline_variant("openvino") == space.variant(space.baseline("openvino"))


def test_a_label_of_many_rules_counts_them_and_tells_plans_apart() -> None:
    few = PrecisionPlan.of({f"/layer{index}": "float32" for index in range(6)})
    assert few.label.count("=float32") == 6
    many = PrecisionPlan.of({f"/layer{index}": "float32" for index in range(12)} | {"/a": "bfloat16"})
    other = PrecisionPlan.of({f"/layer{index}": "float32" for index in range(1, 13)} | {"/a": "bfloat16"})
    assert many.label.startswith("12xfloat32 1xbfloat16#")
    assert many.label != other.label
    assert len(many.label) < 40

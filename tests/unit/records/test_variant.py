from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edgedeploy.records.canonical import Choices, canonical
from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.variant import MOST_BATCH, MOST_INSTANCES, Variant
from edgedeploy.search.space import Space

PRECISIONS = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")}


def make(
    *,
    trained: tuple[str, ...] = (),
    plans: Mapping[str, PrecisionPlan] | None = None,
    seven_bits: Mapping[str, tuple[str, ...]] | None = None,
    tools: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    elastic: Elastic = NO_ELASTIC,
    layer_times: str = "",
    batched: tuple[str, ...] = (),
    **params: bool | int | float | str,
) -> Variant:
    return canonical(
        params,
        arch_defaults={"resolution": 128, "up": "resize"},
        target_precisions=PRECISIONS,
        default_threads=2,
        choices=Choices(
            plans or {},
            dict.fromkeys(PRECISIONS, ("float32", "float16", "int8")),
            trained=trained,
            calibrations={name: next(iter(ways.values())) for name, ways in (tools or {}).items()},
            seven_bits=seven_bits or {},
            quantizers=tools or {},
            elastic=elastic,
            layer_times=layer_times,
            batched=batched,
        ),
    )


def test_what_was_not_proposed_is_the_baselines() -> None:
    variant = make(target="onnxruntime")
    assert variant.arch_kwargs == {"resolution": 128, "up": "resize"}
    assert (variant.precision, variant.width, variant.threads) == ("float32", 1.0, 2)


def test_proposals_that_build_the_same_thing_are_one_variant() -> None:
    assert make(target="onnxruntime", precision="bfloat16") == make(target="onnxruntime")
    assert make(target="openvino", precision="bfloat16") != make(target="openvino")
    assert make(target="openvino", width=1) == make(target="openvino", width=1.0)


def test_the_digest_survives_json_and_tells_variants_apart() -> None:
    variant = make(target="openvino", width=0.5, resolution=64)
    assert Variant.from_json(variant.as_json()).digest == variant.digest
    assert make(target="openvino", width=0.5).digest != variant.digest
    assert make(target="onnxruntime", width=0.5, resolution=64).model_digest == variant.model_digest


def test_rungs_of_recovery_are_models_of_their_own() -> None:
    first, second = (make(target="openvino", width=0.5, recovery_epochs=epochs) for epochs in (0, 4))
    plain = make(target="openvino", width=0.5)
    assert len({first.digest, second.digest, plain.digest}) == 3
    assert len({first.model_digest, second.model_digest, plain.model_digest}) == 3
    assert [Variant.from_json(item.as_json()) for item in (first, second, plain)] == [first, second, plain]
    assert "recovery_epochs" not in plain.as_json()
    assert "4ep" in second.label
    assert make(target="onnxruntime", width=0.5, recovery_epochs=4).model_digest == second.model_digest


def test_what_is_cut_out_of_an_elastic_network_is_another_model() -> None:
    elastic = Elastic(60, (0.25, 0.5), ("bytes",))
    cut = make(target="openvino", width=0.5, allocation="bytes", elastic=elastic)
    plain = make(target="openvino", width=0.5, allocation="bytes")
    assert cut.digest != plain.digest and cut.model_digest != plain.model_digest
    assert Variant.from_json(cut.as_json()) == cut
    assert "elastic" not in plain.as_json()
    assert "elastic" in cut.label
    assert replace(cut, elastic=Elastic(60, (0.5,), ("bytes",))).model_digest != cut.model_digest
    assert make(target="onnxruntime", width=0.5, allocation="bytes", elastic=elastic).model_digest == cut.model_digest


def test_full_and_uniform_widths_are_not_cut_out_of_it() -> None:
    elastic = Elastic(60, (0.25, 0.5), ("bytes",))
    assert make(target="openvino", elastic=elastic, allocation="bytes") == make(target="openvino")
    assert make(target="openvino", elastic=elastic, width=0.5) == make(target="openvino", width=0.5)


def test_depths_and_pairs_with_allocated_widths_are_cut_out_of_it() -> None:
    elastic = Elastic(60, (0.5,), ("bytes",), (0.5, 0.75))
    plain = make(target="openvino", depth=0.5)
    shallow = make(target="openvino", depth=0.5, elastic=elastic)
    pair = make(target="openvino", depth=0.5, width=0.5, allocation="bytes", elastic=elastic)
    narrow = make(target="openvino", width=0.5, allocation="bytes", elastic=elastic)
    assert {item.elastic for item in (shallow, pair, narrow)} == {elastic}
    assert len({item.model_digest for item in (plain, shallow, pair, narrow)}) == 4
    assert len({item.elastic_digest for item in (shallow, pair, narrow)}) == 1
    assert Variant.from_json(pair.as_json()) == pair
    assert not shallow.from_wider
    other = replace(shallow, elastic=replace(elastic, depths=(0.5,)))
    assert other.model_digest != shallow.model_digest and other.elastic_digest != shallow.elastic_digest


def test_what_loses_something_else_too_is_not_cut_out_of_it() -> None:
    elastic = Elastic(60, (0.5,), ("bytes",), (0.5, 0.75))
    others: Sequence[Mapping[str, float | str]] = (
        *({name: 0.5} for name in ("heads", "mlp", "rank", "tokens", "width")),
        {"student": "small"},
        {"depth": 1.0},
    )
    for other in others:
        assert not make(target="openvino", elastic=elastic, **{"depth": 0.5, **other}).elastic, other


def test_an_elastic_network_without_depths_keeps_its_digests() -> None:
    elastic = Elastic(60, (0.25, 0.5), ("bytes",))
    variant = make(target="openvino", width=0.5, allocation="bytes", elastic=elastic)
    assert variant.digest == "3b9ab7f6a6f1f520"
    assert (variant.model_digest, variant.elastic_digest) == ("e8ac7b71a781fdd0", "6ceeb3a084f451d7")
    assert Elastic.from_json({"epochs": 60, "widths": [0.25, 0.5], "allocations": ["bytes"]}) == elastic


def test_the_baselines_network_has_no_rungs() -> None:
    assert make(target="openvino", recovery_epochs=4) == make(target="openvino")
    assert make(target="openvino", recovery_epochs=4, resolution=64).recovery_epochs == 4


def test_a_power_mode_is_another_variant_of_the_same_artifact() -> None:
    plain, low = make(target="openvino"), make(target="openvino", power_mode="15W")
    assert low.digest != plain.digest
    assert low.artifact_name == plain.artifact_name
    assert Variant.from_json(low.as_json()) == low
    assert "15W" in low.label


def test_batches_are_of_an_artifact_and_instances_of_its_run() -> None:
    alone = make(target="onnxruntime", batched=("onnxruntime",))
    served = make(target="onnxruntime", batched=("onnxruntime",), max_batch=4, instances=2)
    assert (served.max_batch, served.instances) == (4, 2)
    assert Variant.from_json(served.as_json()) == served
    assert served.model_digest == alone.model_digest
    assert served.artifact_name == replace(served, instances=1).artifact_name != alone.artifact_name
    assert len({served.digest, alone.digest, replace(served, instances=1).digest}) == 3
    assert served.label == f"{alone.label} 2inst batch4"


def test_one_case_and_one_instance_are_the_variant_that_there_was_before() -> None:
    before = make(target="onnxruntime")
    assert make(target="onnxruntime", batched=("onnxruntime",), max_batch=1, instances=1).digest == before.digest
    assert (
        make(target="onnxruntime", max_batch=8).digest == before.digest
    )  # a target without batches answers one at once


def test_a_codec_is_of_the_run_and_no_codec_is_the_variant_that_there_was_before() -> None:
    before, coded = make(target="onnxruntime"), make(target="onnxruntime", image_codec="jpeg-q75")
    assert make(target="onnxruntime", image_codec="none").digest == before.digest
    assert coded.digest != before.digest and coded.artifact_name == before.artifact_name
    assert Variant.from_json(coded.as_json()) == coded
    assert coded.label == f"{before.label} jpeg-q75"


def test_an_allocation_is_another_model_where_it_changes_one() -> None:
    uniform = make(target="openvino", width=0.5)
    by_bytes = make(target="openvino", width=0.5, allocation="bytes")
    assert by_bytes.model_digest != uniform.model_digest
    assert by_bytes.digest != make(target="openvino", width=0.5, allocation="compute").digest
    assert Variant.from_json(by_bytes.as_json()) == by_bytes
    assert "w0.5-bytes" in by_bytes.label
    assert make(target="openvino", width=0.5, allocation="uniform") == uniform
    assert make(target="openvino", width=1.0, allocation="bytes") == make(target="openvino")
    assert make(target="onnxruntime", width=0.5, allocation="bytes").model_digest == by_bytes.model_digest


def test_an_allocation_by_time_names_the_times_that_it_spends() -> None:
    elastic = Elastic(60, (0.5,), ("bytes",))
    by_time = make(target="openvino", width=0.5, allocation="time", layer_times="a" * 16, elastic=elastic)
    assert (by_time.layer_times, by_time.elastic) == ("a" * 16, NO_ELASTIC)
    other = make(target="openvino", width=0.5, allocation="time", layer_times="b" * 16)
    assert by_time.model_digest != other.model_digest and by_time.digest != other.digest
    assert Variant.from_json(by_time.as_json()) == by_time
    assert "w0.5-time" in by_time.label
    for params in ({"allocation": "bytes", "width": 0.5}, {"width": 0.5}, {"allocation": "time"}):
        assert make(target="openvino", layer_times="a" * 16, **params) == make(target="openvino", **params)


def test_variants_keep_the_names_they_were_measured_under() -> None:
    """Names that were written down before `training` was a setting: stored evidence must still be found."""
    variant = make(target="onnxruntime")
    assert (variant.digest, variant.model_digest) == ("53576d28adad4b3e", "ef5e4f68fa6228a6")
    narrow = make(target="openvino", precision="int8", width=0.5, training="ptq")
    assert (narrow.digest, narrow.artifact_name) == ("31eb56a5fe32fd91", "openvino-int8-e78375a38051af0a")


def test_training_is_of_int8_models_on_targets_that_take_them() -> None:
    both = ("onnxruntime", "openvino")
    trained = make(target="openvino", precision="int8", training="qat", calibration_cases=4, trained=both)
    assert (trained.training, trained.calibration_cases) == ("qat", 0)
    assert "int8 qat" in trained.label
    assert Variant.from_json(trained.as_json()) == trained
    other = make(target="onnxruntime", precision="int8", training="qat", trained=both)
    assert other.model_digest == trained.model_digest, "one training serves all targets"
    plain = make(target="openvino", precision="int8")
    assert trained.model_digest != plain.model_digest
    assert trained.artifact_name != plain.artifact_name
    assert make(target="openvino", precision="int8", training="qat", trained=("onnxruntime",)) == plain
    assert make(target="openvino", training="qat", trained=both) == make(target="openvino")


def test_bits_of_weights_are_of_int8_on_targets_that_can_choose() -> None:
    seven = {"onnxruntime": ("int8",)}
    plain = make(target="onnxruntime", precision="int8")
    narrow = make(target="onnxruntime", precision="int8", weight_bits=7, seven_bits=seven)
    assert (plain.weight_bits, narrow.weight_bits) == (0, 7)
    assert narrow.artifact_name != plain.artifact_name
    assert narrow.model_digest == plain.model_digest
    assert "int8 7bit" in narrow.label
    assert Variant.from_json(narrow.as_json()) == narrow
    assert make(target="onnxruntime", weight_bits=7, seven_bits=seven) == make(target="onnxruntime"), "float"
    assert make(target="openvino", precision="int8", weight_bits=7, seven_bits=seven).weight_bits == 0
    trained: dict[str, Any] = {"precision": "int8", "training": "qat", "trained": ("onnxruntime",), "seven_bits": seven}
    digests = {make(target="onnxruntime", weight_bits=bits, **trained).model_digest for bits in (0, 7, 8)}
    assert len(digests) == 3, "weights are trained for their bits"


TOOLS = {
    "onnxruntime": {"onnxruntime": ("minmax", "entropy")},
    "openvino": {"nncf": ("mean-minmax", "mse"), "onnxruntime": ("minmax", "entropy")},
}


def test_a_quantizer_is_of_calibrated_models_on_targets_that_have_it() -> None:
    plain = make(target="openvino", precision="int8", tools=TOOLS)
    other = make(target="openvino", precision="int8", quantizer="onnxruntime", tools=TOOLS)
    assert (plain.quantizer, other.quantizer) == ("", "onnxruntime")
    assert other.artifact_name != plain.artifact_name
    assert other.model_digest == plain.model_digest
    assert "int8 by onnxruntime" in other.label
    assert Variant.from_json(other.as_json()) == other
    assert make(target="openvino", precision="int8", quantizer="nncf", tools=TOOLS) == plain, "the target's own"
    assert make(target="openvino", quantizer="onnxruntime", tools=TOOLS) == make(target="openvino"), "float"
    assert not make(target="onnxruntime", precision="int8", quantizer="nncf", tools=TOOLS).quantizer
    assert not make(target="openvino", precision="int8", quantizer="onnxruntime").quantizer, "it has none"
    trained: dict[str, Any] = {"precision": "int8", "training": "qat", "trained": ("openvino",), "tools": TOOLS}
    assert not make(target="openvino", quantizer="onnxruntime", **trained).quantizer
    head = {"head": PrecisionPlan.of({"/head": "int8"})}
    assert make(target="openvino", plan="head", plans=head, quantizer="onnxruntime", tools=TOOLS).quantizer


def test_a_calibration_is_one_that_the_quantizer_has() -> None:
    asked: dict[str, Any] = {"target": "openvino", "precision": "int8", "tools": TOOLS}
    assert make(**asked, calibration="mse").calibration == "mse"
    assert not make(**asked, calibration="entropy").calibration
    assert make(**asked, quantizer="onnxruntime", calibration="entropy").calibration == "entropy"
    assert not make(**asked, quantizer="onnxruntime", calibration="mse").calibration
    assert not make(**asked, quantizer="onnxruntime", calibration="minmax").calibration, "its default"


def test_a_plan_that_keeps_layers_in_float32_is_trained_by_itself() -> None:
    both = ("onnxruntime", "openvino")
    plans = {"mixed": PrecisionPlan.of({"/head": "float32"}), "half": PrecisionPlan.of({"/head": "float16"})}
    asked: dict[str, Any] = {"precision": "int8", "training": "qat", "trained": both, "plans": plans}
    whole = make(target="openvino", **asked)
    mixed = make(target="openvino", plan="mixed", **asked)
    assert (mixed.training, mixed.plan) == ("qat", plans["mixed"])
    assert mixed.model_digest != whole.model_digest
    assert make(target="onnxruntime", plan="mixed", **asked).model_digest == mixed.model_digest
    half = make(target="openvino", plan="half", **asked)
    assert (half.training, half.plan) == ("", plans["half"]), "no training has float16 layers: it is calibrated"


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_parameters_are_found_again_for_every_variant_of_a_space(target: str) -> None:
    """A lost history of proposals is written again from the evidence."""
    space = Space(
        targets=("onnxruntime", "openvino"),
        parameters={
            "precision": ("float32", "int8"),
            "training": ("ptq", "qat"),
            "calibration": ("minmax", "percentile"),
            "calibration_cases": (4, 64),
            "weight_bits": (8, 7),
            "quantizer": ("nncf", "onnxruntime"),
            "width": (1.0, 0.5),
            "allocation": ("uniform", "bytes"),
        },
        arch_defaults={},
        target_precisions=PRECISIONS,
        default_threads=2,
        choices=Choices(
            calibrations={"onnxruntime": ("minmax", "percentile")},
            cases=32,
            trained=("onnxruntime",),
            seven_bits={"onnxruntime": ("int8",)},
            quantizers={"onnxruntime": {"onnxruntime": ("minmax", "percentile")}, "openvino": TOOLS["openvino"]},
        ),
    )
    for params in space.combinations():
        found = space.params_of(space.variant(params))
        assert found is not None
        assert space.variant(found) == space.variant(params)
    assert space.params_of(make(target=target)) is None, "another architecture"
    assert space.baseline(target)["training"] == "ptq"


def test_what_stays_of_a_network_leaves_other_digests_as_they_were() -> None:
    plain = make(target="onnxruntime", width=0.5)
    assert "shrink" not in plain.as_json()
    whole = make(target="onnxruntime", width=0.5, heads=1.0, mlp=1.0, depth=1, rank=1.0, tokens=1.0, student="none")
    assert (whole, whole.digest, whole.model_digest) == (plain, plain.digest, plain.model_digest)


def test_the_digests_of_earlier_releases_stay() -> None:
    """Of a folder that was begun before there were shares of heads, features, blocks, rank and tokens."""
    assert make(target="openvino", precision="int8", width=0.5, resolution=64).digest == "083904d7f912c380"
    assert make(target="openvino", precision="int8", width=0.5, resolution=64).model_digest == "9e65f6ab47ed4c17"


def test_a_number_or_a_boolean_of_an_architecture_says_of_what_it_is() -> None:
    """It was `w1 16 True resize t1`: nobody knew of what."""
    arch = (("channels", 16), ("deep", True), ("up", "resize"))
    assert replace(make(target="onnxruntime"), arch=arch).label == (
        "onnxruntime float32 w1 channels=16 deep=true resize t2"
    )


def test_a_model_is_named_without_what_does_not_make_it() -> None:
    """A float model is that of every target and precision; one that was trained to be int8 says so."""
    small = replace(make(target="openvino", precision="int8", width=0.5, resolution=64), recovery_epochs=4)
    assert small.model_label == "w0.5 resolution=64 resize 4ep"
    assert replace(small, training="qat").model_label == "w0.5 resolution=64 resize int8 qat 4ep"


def test_what_stays_of_a_network_names_it_and_survives_json() -> None:
    variant = make(target="onnxruntime", heads=0.5, depth=0.75)
    assert "heads=0.5 depth=0.75" in variant.label
    assert Variant.from_json(variant.as_json()) == variant
    assert variant.model_digest != make(target="onnxruntime", heads=0.5).model_digest
    assert variant.model_digest == make(target="openvino", precision="int8", heads=0.5, depth=0.75).model_digest
    for damaged in ({"heads": 0.0}, {"heads": 1.5}, {"heads": "x"}, {"arms": 0.5}, {"rank": float("nan")}):
        with pytest.raises((ValueError, TypeError)):
            Variant.from_json({**variant.as_json(), "shrink": damaged})


def test_a_student_is_a_network_of_its_own() -> None:
    student = make(target="onnxruntime", student="cnn")
    assert make(target="onnxruntime", student="cnn", width=0.5, heads=0.5, rank=0.5) == student
    assert student.recovery_epochs is None
    assert make(target="onnxruntime", student="cnn", recovery_epochs=4).recovery_epochs == 4


def test_a_parameter_that_the_task_has_itself_is_the_tasks() -> None:
    variant = canonical(
        {"target": "onnxruntime", "depth": 6, "heads": 0.5},
        arch_defaults={"depth": 12},
        target_precisions=PRECISIONS,
        default_threads=1,
    )
    assert variant.arch_kwargs == {"depth": 6}
    assert variant.shrink.as_json() == {"heads": 0.5}


def test_parameters_of_a_variant_are_found_again() -> None:
    space = Space(
        ("onnxruntime",),
        {"heads": (1.0, 0.5), "student": ("none", "cnn"), "width": (1.0, 0.5), "depth": (4, 2)},
        {"depth": 4},
        PRECISIONS,
        1,
    )
    for params in space.combinations():
        found = space.params_of(space.variant(params))
        assert found is not None
        assert space.variant(found) == space.variant(params)
    assert space.baseline_variant("onnxruntime").whole
    assert space.baseline("onnxruntime") == {
        **{"target": "onnxruntime", "heads": 1.0},
        **{"student": "none", "width": 1.0, "depth": 4},
    }


@pytest.mark.parametrize(("name", "most"), [("max_batch", MOST_BATCH), ("instances", MOST_INSTANCES)])
def test_what_serves_is_bounded(name: str, most: int) -> None:
    data = Variant("onnxruntime", "int8", 1.0, (), 1).as_json()
    assert getattr(Variant.from_json({**data, name: most}), name) == most
    for value in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"{name} is 1 to {most}"):
            Variant.from_json({**data, name: value})

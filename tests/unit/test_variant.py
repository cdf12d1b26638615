from __future__ import annotations

from edgedeploy.variant import Variant, canonical

PRECISIONS = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")}


def make(**params: bool | int | float | str) -> Variant:
    return canonical(
        params, arch_defaults={"resolution": 128, "up": "resize"}, target_precisions=PRECISIONS, default_threads=2
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


def test_a_power_mode_is_another_variant_of_the_same_artifact() -> None:
    plain, low = make(target="openvino"), make(target="openvino", power_mode="15W")
    assert low.digest != plain.digest
    assert low.artifact_name == plain.artifact_name
    assert Variant.from_json(low.as_json()) == low
    assert "15W" in low.label


def test_variants_without_a_power_mode_keep_their_digest() -> None:
    """Evidence of earlier releases stays found."""
    assert make(target="onnxruntime").digest == "53576d28adad4b3e"

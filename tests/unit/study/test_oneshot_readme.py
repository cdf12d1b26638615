"""What the README of an exported artifact says beside the three lines that load it."""

from __future__ import annotations

from dataclasses import replace

import made_up

from edgedeploy.study.oneshot.readme import loading_code, readme


def test_an_output_in_another_order_is_told_with_the_way_back() -> None:
    built = made_up.artifact(made_up.variant("litert", "int8"))
    plain = readme(built, {}, 2)
    assert "another order" not in plain
    turned = replace(built, settings=(("layers", "[]"), ("layout:logits", "0,3,1,2")))
    assert "Output `logits` comes in another order: `outputs['logits'].transpose(0, 3, 1, 2)`" in readme(turned, {}, 2)


def test_a_target_of_another_package_is_named_with_its_settings() -> None:
    built = replace(made_up.artifact(made_up.variant("capsule", "int8")), settings=(("mode", "fast"),))
    assert loading_code(built, 1) is None
    assert "Open `model.onnx` with the runtime of target `capsule` with {'mode': 'fast'}." in readme(built, {}, 1)


def test_a_fact_cannot_break_the_table() -> None:
    assert "| name | a\\|b c |" in readme(made_up.artifact(made_up.variant()), {"name": "a|b\nc"}, 1)

"""What a board's processor makes of each precision, from the flags of real processors' probes."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from edgedeploy.interfaces.ability import Demand, abilities, has_native_bfloat16, runnable, sums_int8_exactly
from edgedeploy.records.board import BoardInfo
from edgedeploy.spec.study import load_spec
from edgedeploy.study.preflight import prepare
from edgedeploy.targets.registry import demands_of, find_targets

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples/squares.py"

ANYWHERE = ("int4-weights", "int8-weights")
"""Weights alone are narrow: no instruction is needed for them."""

ZEN4 = ("avx2", "avx512_bf16", "avx512_vnni", "avx512f", "f16c", "fma")
HASWELL = ("avx2", "f16c", "fma")
CORTEX_A72 = ("asimd",)
CORTEX_A78AE = ("asimd", "asimddp", "asimdhp", "fphp")


SKYLAKE_X = ("avx2", "avx512f", "f16c", "fma")
ALDER_LAKE = ("avx2", "avx_vnni", "f16c", "fma")


@pytest.mark.parametrize(
    ("arch", "isa", "exact"),
    [
        ("x86_64", ZEN4, True),
        ("x86_64", ALDER_LAKE, True),
        ("x86_64", HASWELL, False),
        ("AMD64", SKYLAKE_X, False),
        ("aarch64", CORTEX_A72, True),
    ],
)
def test_int8_saturates_on_x86_without_dot_products(arch: str, isa: tuple[str, ...], exact: bool) -> None:
    assert sums_int8_exactly(arch, isa) is exact


@pytest.mark.parametrize(
    ("isa", "native"), [(ZEN4, True), (SKYLAKE_X, False), (HASWELL, False), (("asimd", "bf16"), True)]
)
def test_bfloat16_is_native_where_a_flag_says_so(isa: tuple[str, ...], native: bool) -> None:
    assert has_native_bfloat16(isa) is native


def made_up_board(*isa: str) -> BoardInfo:
    return made_up.board(isa=isa)


def natives(target: str, *isa: str) -> dict[str, bool | None]:
    plugin = next(plugin for plugin in find_targets() if plugin.name == target)
    found = abilities(made_up_board(*isa), plugin.load().precisions, demands_of(plugin.load()))
    return {
        ability.precision: ability.native for ability in found if ability.runs and ability.precision not in ANYWHERE
    }


@pytest.mark.parametrize(
    ("isa", "openvino", "onnxruntime"),
    [
        (ZEN4, {"float32": None, "bfloat16": True, "int8": True}, {"int8": True, "int8-dynamic": True}),
        (HASWELL, {"float32": None, "int8": False}, {"int8": False, "int8-dynamic": False}),
        (CORTEX_A72, {"float32": None, "int8": False}, {"int8": False, "int8-dynamic": False}),
        (CORTEX_A78AE, {"float32": None, "int8": True}, {"int8": True, "int8-dynamic": True}),
    ],
)
def test_precisions_worth_trying_by_processor(
    isa: tuple[str, ...], openvino: dict[str, bool | None], onnxruntime: dict[str, bool | None]
) -> None:
    assert natives("openvino", *isa) == openvino
    assert natives("onnxruntime", *isa) == {"float32": None, **onnxruntime}


def test_what_cannot_run_says_which_instructions_are_missing() -> None:
    demands = {"bfloat16": Demand(runs_with=("avx512_bf16", "amx_bf16"))}
    refused = abilities(made_up_board(*HASWELL), ("float32", "bfloat16"), demands)[1]
    assert (refused.runs, refused.native) == (False, False)
    assert refused.reason == "the CPU has none of avx512_bf16, amx_bf16"
    assert runnable(made_up_board(*HASWELL), ("float32", "bfloat16"), demands) == ("float32",)


def test_what_only_lacks_speed_is_still_tried() -> None:
    slow = abilities(made_up_board(*HASWELL), ("int8",), {"int8": Demand(fast_with=("avx_vnni",))})[0]
    assert (slow.runs, slow.native) == (True, False)
    assert "measure it" in slow.reason


def test_a_target_without_demands_runs_anywhere() -> None:
    class Modest:
        name, precisions, extra = "modest", ("float32",), "study"

    assert demands_of(Modest()) == {}  # type: ignore[arg-type]
    assert runnable(made_up_board(), ("float32",), {}) == ("float32",)


BF16_LAYERS = """\
[study]
name = "bf16 layers"
targets = ["openvino"]

[task]
kind = "python"
object = "{task}:make_task"

[[boards]]
name = "cart"
kind = "local"

[space]
plan = ["none", "head"]

[plans.head]
"*head*" = "bfloat16"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 2
"""


@pytest.mark.parametrize(("isa", "variants"), [(ZEN4, 2), (HASWELL, 1)])
def test_single_layers_are_held_against_the_processor_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: tuple[str, ...], variants: int
) -> None:
    class Probed:
        def probe(self) -> BoardInfo:
            return made_up_board(*isa)

    monkeypatch.setattr("edgedeploy.study.preflight.open_board", lambda table, sessions: Probed())
    file = tmp_path / "study.toml"
    file.write_text(BF16_LAYERS.format(task=EXAMPLE))
    spec, source = load_spec(file)
    ready = prepare(spec, source, (spec.board(None),))
    assert len({ready.space.variant(params).digest for params in ready.space.combinations()}) == variants
    said = "openvino bfloat16 for single layers is left out on board made-up board: the CPU has none of"
    assert [line.startswith(said) for line in ready.left_out] == [True] * (variants == 1)

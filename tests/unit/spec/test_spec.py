"""A study file is valid as a whole, or refused with the key that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from spec_kit import TOP

from edgedeploy.errors import SpecError
from edgedeploy.records.elastic import Elastic
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.spec.recovery import elastic_of
from edgedeploy.spec.source import key_text, line_of
from edgedeploy.spec.space import check_quantizers
from edgedeploy.spec.study import load_spec, parse_spec
from edgedeploy.study.changed_keys import changed_keys

GOOD = f"""\
{TOP}width = [1.0, 0.5]
resolution = [128, 64]
precision = ["float32", "int8"]

[[objectives]]
metric = "dice_mean"

[[objectives]]
metric = "latency_ratio"

[[constraints]]
metric = "latency_p90_ns"
at_most = "20 ms"

[budget]
trials = 10
wall_clock = "15 min"
"""

ARCHITECTURE = {"resolution": (128, 96, 64)}
METRICS = {"dice_mean": MetricInfo("maximize", "1", "mean Dice")}
TARGETS = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")}


def check(text: str) -> None:
    spec, source = parse_spec(text, Path("study.toml"))
    spec.check(source, architecture=ARCHITECTURE, task_metrics=METRICS, known_targets=TARGETS)


def test_a_good_file_is_taken_as_it_is() -> None:
    check(GOOD)
    spec, _ = parse_spec(GOOD, Path("study.toml"))
    assert spec.budget.wall_clock == 15 * 60
    assert spec.space["width"] == (1.0, 0.5)
    assert [type(value) for value in spec.space["resolution"]] == [int, int]


def test_a_range_is_written_out() -> None:
    spec, _ = parse_spec(
        GOOD.replace("width = [1.0, 0.5]", "width = { low = 0.25, high = 1.0, step = 0.25 }"), Path("s")
    )
    assert spec.space["width"] == (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('wall_clock = "15 min"', 'wallclock = "15 min"', None, ["wallclock", "Did you mean 'wall_clock'?"]),
        ('wall_clock = "15 min"', 'wall_clock = "15 ms"', None, ["'20 min'", "15 ms"]),
        ('wall_clock = "15 min"', "wall_clock = 15", None, ["bare number 15"]),
        ("trials = 10", "trials = 0", None, ["budget.trials", "greater than or equal to 1"]),
        ('at_most = "20 ms"', 'at_most = "20 MB"', None, ["latency_p90_ns", "20 MB", "'20 ms'"]),
        ('at_most = "20 ms"', "at_most = 20", None, ["bare number"]),
        ('at_most = "20 ms"', 'at_most = "nan ms"', None, ["nan ms"]),
        ('metric = "dice_mean"', 'metric = "dice_men"', None, ["Did you mean 'dice_mean'?"]),
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onxruntime"]', None, ["Did you mean 'onnxruntime'?"]),
        ("resolution = [128, 64]", "resolutoin = [128, 64]", None, ["Did you mean 'resolution'?"]),
        ("resolution = [128, 64]", "resolution = [128, 65]", None, ["65", "128, 96, 64"]),
        ("resolution = [128, 64]", "resolution = []", 12, ["empty"]),
        ("width = [1.0, 0.5]", "width = [1.5]", None, ["0 < width <= 1", "1.5"]),
        ("width = [1.0, 0.5]", "width = [1.0, 1.0]", 12, ["stands twice"]),
        ("[space]", "[recovery]\nelastic_epochs = 2\n[space]", 13, ["recovery.elastic_epochs", "uniform widths"]),
        ("[space]", "[recovery]\nelastic_epochs = -1\n[space]", 13, ["recovery.elastic_epochs", "-1"]),
        ("width = [1.0, 0.5]", 'allocation = ["flops"]', None, ["space.allocation", "'uniform', 'compute', 'bytes'"]),
        ('precision = ["float32", "int8"]', 'precision = ["float16"]', None, ["float16", "They build"]),
        ('kind = "local"', 'kind = "ssh"', 8, ["`host` goes with"]),
        ('kind = "local"', 'kind = "locl"', None, ["'local'"]),
        ('kind = "local"', 'kind = "emulated"\ngovernor = "performance"', 8, ["no `governor` or `nvpmodel`"]),
        ('kind = "local"', 'kind = "local"\ngovenor = "performance"', 11, ["Did you mean 'governor'?"]),
        ('name = "demo"', "", 1, ["study.name", "required"]),
    ],
)
def test_one_wrong_thing_is_one_clear_line(old: str, new: str, line: int | None, words: list[str]) -> None:
    assert GOOD.count(old) == 1
    line = line or GOOD[: GOOD.index(old)].count("\n") + 1
    with pytest.raises(SpecError) as caught:
        check(GOOD.replace(old, new))
    message = str(caught.value)
    assert "\n" not in message
    assert f"study.toml:{line}:" in message, message
    for word in words:
        assert word in message, message
    assert caught.value.exit_code == 2


ELASTIC = GOOD.replace("[space]\n", '[recovery]\nelastic_epochs = 2\n[space]\nallocation = ["uniform", "bytes"]\n')


def test_an_elastic_network_is_for_the_allocated_widths_below_one() -> None:
    check(ELASTIC)
    spec, _ = parse_spec(ELASTIC.replace("width = [1.0, 0.5]", "width = [1.0, 0.5, 0.25]"), Path("s"))
    elastic = elastic_of(spec.space, spec.recovery.elastic_epochs, ARCHITECTURE)
    assert elastic == Elastic(2, (0.25, 0.5), ("bytes",))
    assert not elastic_of(spec.space, 0, ARCHITECTURE)
    more = ELASTIC.replace('"bytes"]', '"bytes", "time"]')
    spec, _ = parse_spec(more, Path("s"))
    assert elastic_of(spec.space, 2, ARCHITECTURE) == Elastic(2, (0.5,), ("bytes",)), (
        "what waits for a measurement is not cut out of it"
    )
    with pytest.raises(SpecError, match=r"recovery\.elastic_epochs: .*those by time wait for a measurement"):
        check(more.replace('"bytes", ', ""))
    with pytest.raises(SpecError, match=r"recovery\.elastic_epochs: the space has no width below 1"):
        check(ELASTIC.replace("width = [1.0, 0.5]", "width = [1.0]"))


DEPTHS = ELASTIC.replace("resolution = [128, 64]", "resolution = [128, 64]\ndepth = [1.0, 0.75, 0.5]")


@pytest.mark.parametrize(
    ("text", "elastic"),
    [
        (DEPTHS, Elastic(2, (0.5,), ("bytes",), (0.5, 0.75))),
        (DEPTHS.replace("width = [1.0, 0.5]", "width = [1.0]"), Elastic(2, (), (), (0.5, 0.75))),
        (DEPTHS.replace(', "bytes"]', "]"), Elastic(2, (), (), (0.5, 0.75))),
    ],
)
def test_an_elastic_network_is_for_the_depths_below_one_too(text: str, elastic: Elastic) -> None:
    check(text)
    spec, _ = parse_spec(text, Path("s"))
    assert elastic_of(spec.space, spec.recovery.elastic_epochs, ARCHITECTURE) == elastic
    assert elastic_of(spec.space, 2, {"depth": ()}).depths == (), "the task's own depth is none of blocks"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEPTHS.replace("elastic_epochs = 2", "elastic_epochs = 0"), ["space.allocation", "add elastic_epochs"]),
        (DEPTHS.replace("depth =", "heads = [1.0, 0.5]\ndepth ="), ["space.allocation", "Search 'heads'"]),
        (DEPTHS.replace(', "bytes"]', "]").replace("[1.0, 0.75, 0.5]", "[1.0]"), ["elastic_epochs", "uniform widths"]),
    ],
)
def test_what_an_elastic_network_has_no_depths_for_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        check(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


PLANNED = GOOD.replace("[[objectives]]", '[plans.head]\n"/head/*" = "float32"\n\n[[objectives]]', 1).replace(
    "[space]\n", '[space]\nplan = ["none", "head"]\ncalibration = ["minmax"]\ncalibration_cases = [8, 32]\n'
)


def test_plans_keep_the_order_they_were_written_in() -> None:
    check(PLANNED)
    text = PLANNED.replace('"/head/*" = "float32"', '"/z" = "int8"\n"/a*" = "float32"')
    plan = parse_spec(text, Path("s"))[0].precision_plans()["head"]
    assert [rule.pattern for rule in plan.rules] == ["/z", "/a*"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('plan = ["none", "head"]', 'plan = ["tail"]', ["space.plan", "'tail'", "'head'"]),
        ('plan = ["none", "head"]', 'plan = ["auto:1.5"]', ["space.plan", "'auto:1.5'", "from 0 to 1"]),
        ('plan = ["none", "head"]', 'plan = ["auto:much"]', ["space.plan", "'auto:much'", "auto:0.5"]),
        ("[plans.head]", '[plans."auto:1"]', ["space.plan"]),
        ('= "float32"\n\n[[', '= "float31"\n\n[[', ["plans.head", "float31", "int4-weights"]),
        ('"/head/*" = "float32"', "", ["plans.head", "no plan at all"]),
        ('calibration = ["minmax"]', 'calibration = ["guess"]', ["space.calibration", "guess", "percentile"]),
        ("calibration_cases = [8, 32]", "calibration_cases = [0]", ["space.calibration_cases", "whole numbers"]),
        ("calibration_cases = [8, 32]", "threads = [2, 4000]", ["space.threads", "4000", "from 1 to 256"]),
        ("calibration_cases = [8, 32]", "weight_bits = [8, 6]", ["space.weight_bits", "6 is not", "8, 7"]),
        ('kind = "synthetic-ultrasound"', 'kind = "onnx"', ["`model`"]),
        ('kind = "synthetic-ultrasound"', 'kind = "python"\nmodel = "m.onnx"', ["task"]),
    ],
)
def test_a_wrong_plan_or_calibration_is_named(old: str, new: str, words: list[str]) -> None:
    assert PLANNED.count(old) == 1
    with pytest.raises(SpecError) as caught:
        check(PLANNED.replace(old, new))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_budget_needs_both_models_and_a_target_that_builds_single_layers() -> None:
    text = PLANNED.replace('["none", "head"]', '["none", "auto:0.5"]')
    check(text)
    spec, source = parse_spec(text, Path("study.toml"))
    can: dict[str, list[str]] = {"layer_precisions": ["float32", "int8"], "calibrations": ["minmax"]}
    spec.check_choices(source, **can, seven_bit_precisions=[])
    for offered in ([], ["float32"]):
        with pytest.raises(SpecError, match=r"space.plan: no target of this study builds single layers in float32 and"):
            spec.check_choices(source, **{**can, "layer_precisions": offered}, seven_bit_precisions=[])
    with pytest.raises(SpecError, match=r'times of the float32 and the int8 model.*Add "float32" and "int8"'):
        check(text.replace('precision = ["float32", "int8"]', 'precision = ["int8"]'))


def test_what_no_target_can_do_is_refused() -> None:
    spec, source = parse_spec(PLANNED, Path("study.toml"))
    can: dict[str, list[str]] = {"layer_precisions": ["float32", "int8"], "calibrations": ["minmax"]}
    spec.check_choices(source, **can, seven_bit_precisions=[])
    with pytest.raises(SpecError, match=r"plans.head: no target of this study builds single layers in float32"):
        spec.check_choices(source, **{**can, "layer_precisions": []}, seven_bit_precisions=[])
    with pytest.raises(SpecError, match=r"space.calibration: no target of this study calibrates by minmax.*entropy"):
        spec.check_choices(source, **{**can, "calibrations": ["entropy"]}, seven_bit_precisions=[])


def test_quantizers_are_those_of_the_targets_and_make_int8() -> None:
    text = GOOD.replace("[space]\n", '[space]\nquantizer = ["nncf", "onnxruntime"]\n')
    spec, source = parse_spec(text, Path("study.toml"))
    check_quantizers(source, spec.space, ["float32", "int8"], ["onnxruntime", "nncf", "onnxruntime"])
    with pytest.raises(SpecError, match=r"space.quantizer: no target .* quantizes by 'onnxruntime'.*They have: nncf"):
        check_quantizers(source, spec.space, ["int8"], ["nncf"])
    with pytest.raises(SpecError, match=r"space.quantizer: .*the space asks for none.*Add \"int8\" to precision"):
        check_quantizers(source, spec.space, ["float32"], ["nncf", "onnxruntime"])
    check_quantizers(source, {}, ["float32"], [])


def test_bits_of_weights_need_a_precision_that_has_them() -> None:
    spec, source = parse_spec(GOOD.replace("[space]\n", "[space]\nweight_bits = [8, 7]\n"), Path("study.toml"))
    asked = [str(name) for name in spec.space["precision"]]
    can: dict[str, list[str]] = {"layer_precisions": [], "calibrations": []}
    spec.check_choices(source, **can, seven_bit_precisions=asked)
    with pytest.raises(SpecError, match=r"space.weight_bits: .*Add 'int8-dynamic' to precision"):
        spec.check_choices(source, **can, seven_bit_precisions=["int8-dynamic"])
    with pytest.raises(SpecError, match=r"space.weight_bits: .*Remove it"):
        spec.check_choices(source, **can, seven_bit_precisions=[])


MODES = GOOD.replace("[space]\n", '[space]\npower_mode = ["MAXN", "performance"]\n')
OFFERED = {"performance": "governor", "powersave": "governor", "MAXN": "nvpmodel"}


@pytest.mark.parametrize(
    ("old", "new", "offered", "message"),
    [
        ('"MAXN"', '"MAXM"', OFFERED, r"'here' has no power mode 'MAXM' .* It has: performance, powersave, MAXN"),
        ("", "", {}, r"no power mode 'MAXN' that can be set\. It has: none"),
        ("local", 'local"\ngovernor = "powersave', OFFERED, "both set its governor.*Remove it from the board's table"),
    ],
)
def test_power_modes_are_held_against_the_board(old: str, new: str, offered: dict[str, str], message: str) -> None:
    check(MODES)
    spec, source = parse_spec(MODES, Path("study.toml"))
    spec.check_power_modes(source, "here", spec.board(None), OFFERED)
    spec, source = parse_spec(MODES.replace(old, new), Path("study.toml"))
    with pytest.raises(SpecError, match=rf"study.toml:\d+: space.power_mode: .*{message}"):
        spec.check_power_modes(source, "here", spec.board(None), offered)


def test_a_power_mode_is_a_name() -> None:
    with pytest.raises(SpecError, match=r"space\.power_mode: expected names of modes, but got 0"):
        check(MODES.replace('"MAXN"', "0"))


TRAINED = GOOD.replace("[space]\n", '[space]\ntraining = ["ptq", "qat"]\n')


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["ptq", "qat"]', '["ptq", "qta"]', ["space.training", "'qta'", "'ptq', 'qat'"]),
        ('precision = ["float32", "int8"]\n', "", ["space.training", "trains int8 models", "float32"]),
        ('["float32", "int8"]', '["float32", "bfloat16"]', ["space.training", "bfloat16", 'Add "int8" to precision']),
    ],
)
def test_training_goes_with_int8(old: str, new: str, words: list[str]) -> None:
    check(TRAINED)
    assert TRAINED.count(old) == 1
    with pytest.raises(SpecError) as caught:
        check(TRAINED.replace(old, new))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_goal_against_the_metric_is_refused() -> None:
    with pytest.raises(SpecError, match="better when you maximize it"):
        check(GOOD.replace('metric = "dice_mean"', 'metric = "dice_mean"\ngoal = "minimize"'))


def test_energy_is_an_objective_of_real_boards_only() -> None:
    text = GOOD.replace('metric = "latency_ratio"', 'metric = "energy_j"')
    check(text)
    with pytest.raises(SpecError, match="an emulated board has no energy of its own"):
        check(text.replace('kind = "local"', 'kind = "emulated"'))


def test_no_space_at_all_is_an_error() -> None:
    text = GOOD.replace("width = [1.0, 0.5]\nresolution = [128, 64]\n", "").replace(
        'precision = ["float32", "int8"]\n', ""
    )
    with pytest.raises(SpecError, match="the space is empty"):
        check(text)


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(GOOD.replace("trials = 10", "trials = = 10"), encoding="utf-8")
    with pytest.raises(SpecError, match="line 28"):
        load_spec(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        load_spec(tmp_path / "absent.toml")


def test_the_line_of_a_key_in_the_second_table_of_an_array() -> None:
    assert line_of(GOOD, "objectives[0].metric") == 18
    assert line_of(GOOD, "objectives[1].metric") == 21
    assert line_of(GOOD, "nowhere.at.all") is None


def test_entries_of_a_list_count_from_1_and_names_that_are_numbers_stay() -> None:
    assert key_text("objectives[0].metric") == "objectives number 1, metric"
    assert key_text("space.width[1]") == "space.width number 2"
    assert key_text("task.options.classes.0") == "task.options.classes.0"
    wrong = GOOD.replace("width = [1.0, 0.5]", "width = [1.0, inf]")
    line = 1 + wrong[: wrong.index("inf]")].count("\n")
    with pytest.raises(SpecError, match=rf"^study.toml:{line}: space.width number 2: expected a finite number"):
        parse_spec(wrong, Path("study.toml"))
    with pytest.raises(SpecError, match=r": study.targets number 2: .*got 3"):
        parse_spec(GOOD.replace('"openvino"]', "3]"), Path("study.toml"))
    twice = {"objectives": [{"metric": "a"}, {"metric": "b"}]}
    other = {"objectives": [{"metric": "a"}, {"metric": "c"}]}
    assert changed_keys(twice, other) == ("objectives number 2, metric",)


@pytest.mark.parametrize(
    ("name", "direction", "told"),
    [
        ("latency_ratio", "minimize", "a board gives a metric of that name"),
        ("offline_throughput_per_s", "maximize", "a board gives a metric of that name"),
        ("two words", "minimize", "it is no name"),
        ("", "minimize", "it is no name"),
        ("dice", "up", "its direction is 'up'. Use 'minimize' or 'maximize'"),
    ],
)
def test_a_tasks_metric_may_not_stand_for_a_boards(name: str, direction: Any, told: str) -> None:
    spec, source = parse_spec(GOOD, Path("study.toml"))
    metrics = {**METRICS, name: MetricInfo(direction, "1", "the task's own")}
    with pytest.raises(SpecError, match=re.escape(told)):
        spec.check(source, architecture=ARCHITECTURE, task_metrics=metrics, known_targets=TARGETS)


@pytest.mark.parametrize(
    ("metric", "limit", "said"),
    [
        (
            "latency_p90_ns",
            'at_most = "-4.14 ms"',
            "at_most: latency_p90_ns: expected a limit of 0 or more, but got '-4.14 ms'",
        ),
        ("latency_p90_ns", 'at_least = "-4.14 ms"', "at_least: latency_p90_ns: expected a limit of 0 or more"),
        ("latency_ratio", "at_most = -0.5", "at_most: latency_ratio: expected a limit of 0 or more, but got -0.5"),
        ("energy_j", 'at_most = "-15 mJ"', "at_most: energy_j: expected a limit of 0 or more, but got '-15 mJ'"),
        ("size_bytes", 'at_most = "-8 MB"', "at_most: size_bytes: expected a limit of 0 or more, but got '-8 MB'"),
        (
            "latency_p90_ns",
            'at_most = "4 ms"\nmargin = "-1 ms"',
            "margin: latency_p90_ns: expected a margin of 0 or more",
        ),
        (
            "dice_mean",
            "at_least = 0.8\nmargin = -0.1",
            "margin: dice_mean: expected a margin of 0 or more, but got -0.1",
        ),
    ],
)
def test_no_limit_is_below_what_can_be_measured(metric: str, limit: str, said: str) -> None:
    """A margin below zero had ended in a ValueError; the limits had been taken, though none or all would meet them."""
    text = GOOD.replace('metric = "latency_p90_ns"\nat_most = "20 ms"', f'metric = "{metric}"\n{limit}')
    with pytest.raises(SpecError, match=r"study\.toml:\d+: constraints number 1, ") as caught:
        check(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "limit"),
    [
        ("latency_p90_ns", 'at_most = "0 ms"'),
        ("latency_p90_ns", 'at_most = "4 ms"\nmargin = "4 ms"'),
        ("latency_ratio", "at_least = 0.5\nmargin = 0.6"),
        ("dice_mean", "at_least = -1"),
    ],
)
def test_a_limit_may_be_zero_and_that_of_a_task_anything(metric: str, limit: str) -> None:
    check(GOOD.replace('metric = "latency_p90_ns"\nat_most = "20 ms"', f'metric = "{metric}"\n{limit}'))


def test_a_power_mode_by_number_is_not_below_zero() -> None:
    board = 'kind = "local"'
    assert board in GOOD
    check(GOOD.replace(board, f"{board}\nnvpmodel = 0"))
    with pytest.raises(SpecError, match=r"boards number 1, nvpmodel: .*but got -1"):
        check(GOOD.replace(board, f"{board}\nnvpmodel = -1"))

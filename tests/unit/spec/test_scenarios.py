"""What a study file may say of scenarios, and what a board is sent for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.errors import DataError, SpecError
from edgedeploy.records.job import ScenarioPlan
from edgedeploy.records.metric_table import OF_IMAGES, OF_PACKED, SCENARIO_METRICS
from edgedeploy.runtime.scenarios.base import SCENARIOS, make_scenario
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.preflight import older_keys

GOOD = """\
[study]
name = "demo"
targets = ["onnxruntime"]

[task]
kind = "synthetic-ultrasound"

[[boards]]
name = "here"
kind = "local"

[space]
width = [1.0, 0.5]

[[objectives]]
metric = "latency_ratio"

[[constraints]]
metric = "latency_p90_ns"
at_most = "20 ms"

[budget]
trials = 10
"""
REALTIME = '\n[measure]\nscenarios = ["realtime"]\n[measure.realtime]\n'


def check(text: str) -> None:
    spec, source = parse_spec(text, Path("study.toml"))
    spec.check(source, architecture={}, task_metrics={}, known_targets={"onnxruntime": ("float32",)})


def parse(text: str) -> StudySpec:
    return parse_spec(GOOD + text, Path("study.toml"))[0]


def plan(text: str, folder: Path = Path()) -> ScenarioPlan:
    (found,) = parse(text).measure.plans(folder)
    return found


def test_a_study_without_scenarios_is_as_before() -> None:
    spec = parse("")
    assert spec.measure.plans(Path()) == ()
    assert spec.measure.timed_queries == 662
    assert not set(spec.metric_table({})) & {name for table in SCENARIO_METRICS.values() for name in table}


def test_every_scenario_with_its_defaults_is_one_the_board_knows() -> None:
    none = {OF_IMAGES, OF_PACKED}  # bytes of images and of packed weights are no load of a board
    names = [name for name in SCENARIO_METRICS if name not in {"realtime", *none}]
    plans = parse(f"\n[measure]\nscenarios = {names}\n").measure.plans(Path())
    assert {item.name for item in plans} | {"single_stream", "realtime", *none} == set(SCENARIO_METRICS)
    for item in plans:
        assert item.limit_s > 0
        if item.name in SCENARIOS:
            make_scenario(item.name, item.settings)


def test_the_heat_of_a_sustained_load_comes_last() -> None:
    plans = parse('\n[measure]\nscenarios = ["sustained", "offline", "multi_stream"]\n').measure.plans(Path())
    assert [item.name for item in plans] == ["offline", "multi_stream", "sustained"]


def test_a_constant_rate_becomes_arrival_times() -> None:
    found = plan(REALTIME + 'rate_hz = 40.0\nframes = 4\nstuck_after = "10 s"\nstages = ["overlay"]\n')
    assert found.settings["arrivals_ns"] == [0, 25_000_000, 50_000_000, 75_000_000]
    assert found.settings["deadline_ns"] == 25_000_000
    assert found.limit_s == pytest.approx(10.075)
    make_scenario(found.name, found.settings)


def test_a_recording_becomes_arrival_times(tmp_path: Path) -> None:
    stamps = "".join(f"Seq_Frame{i:04d}_Timestamp = {s}\n" for i, s in enumerate((7, 8, 10, 20)))
    (tmp_path / "a.mha").write_text(f"NDims = 3\n{stamps}ElementDataFile = LOCAL\n")
    found = plan(REALTIME + 'recording = "a.mha"\nframes = 3\n', tmp_path)
    assert found.settings["arrivals_ns"] == [0, 1_000_000_000, 3_000_000_000]
    assert found.settings["deadline_ns"] == 2_000_000_000
    with pytest.raises(DataError, match=r"b\.mha"):
        plan(REALTIME + 'recording = "b.mha"\n', tmp_path)


@pytest.mark.shared
def test_a_real_recording_sets_the_pace(shared: Path) -> None:
    found = plan(REALTIME + 'recording = "fCal_Test_Calibration_3NWires.igs.mha"\n', shared / "data" / "us_sequences")
    assert len(found.settings["arrivals_ns"]) == 188
    assert 70_000_000 < found.settings["deadline_ns"] < 80_000_000  # about 13 frames a second


def test_the_single_stream_gets_the_queries_of_its_percentile() -> None:
    assert parse('\n[measure]\nscenarios = ["single_stream"]\n').measure.timed_queries == 6636
    text = '\n[measure]\nqueries = 700\nscenarios = ["single_stream"]\n[measure.single_stream]\npercentile = 99\n'
    assert parse(text).measure.timed_queries == 700


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[measure]\nscenarios = ["realtme"]\n', ["measure.scenarios", "realtme", "'realtime'"]),
        ('[measure]\nscenarios = ["offline", "offline"]\n', ["offline stands twice"]),
        ('[measure]\nscenarios = ["realtime"]\n', ["one of rate_hz, recording and clip", "none"]),
        (REALTIME + 'rate_hz = 30.0\nclip = "x.dcm"\n', ["rate_hz, clip"]),
        (REALTIME + "rate = 30.0\n", ["measure.realtime.rate", "rate_hz"]),
        (REALTIME + "rate_hz = 0.0\n", ["greater than 0"]),
        (REALTIME + 'rate_hz = 30.0\npolicy = "newest"\n', ["'latest', 'bounded' or 'block'"]),
        (REALTIME + "rate_hz = 30.0\ncapacity = 2\n", ["capacity", "bounded"]),
        (REALTIME + "rate_hz = 30.0\ndeadline = 33\n", ["bare number 33"]),
        (REALTIME + 'rate_hz = 30.0\nstages = ["encode"]\n', ["'decode', 'resize' or 'overlay'"]),
        ("[measure.offline]\nsamples = 100\n", ["scenarios does not name 'offline'"]),
        ('[measure]\nscenarios = ["offline"]\n[measure.offline]\nsamples = 8\nchunks = 9\n', ["chunks <= samples"]),
        ('[measure]\nscenarios = ["sustained"]\n[measure.sustained]\nduration = "20 s"\n', ["5 to 10000 windows"]),
        ('[measure]\nscenarios = ["multi_stream"]\n[measure.multi_stream]\nqueries = 661\n', ["needs 662", "661"]),
        ('[measure]\nscenarios = ["single_stream"]\n[measure.single_stream]\npercentile = 98\n', ["one of 50, 90, 99"]),
    ],
)
def test_what_is_wrong_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse("\n" + text)
    for word in words:
        assert word in str(caught.value)


CONSTRAINT = '\n[[constraints]]\nmetric = "{metric}"\n{limit}\n'


@pytest.mark.parametrize(
    ("metric", "limit"),
    [
        ("realtime_deadline_miss_percent", 'at_most = "0.5 %"'),
        ("realtime_result_age_p99_ns", 'at_most = "50 ms"'),
        ("offline_throughput_per_s", 'at_least = "30 /s"'),
        ("latency_p999_ns", 'at_most = "30 ms"'),
        ("multi_stream_streams", 'at_least = "4 streams"'),
        ("resources_memory_area_byte_s", 'at_most = "2 GB*s"'),
        ("resources_cpu_area_core_s", 'at_most = "2 s"'),
        ("sustained_slope_percent_per_min", 'at_most = "0.1 %/min"'),
        ("sustained_temperature_rise_c", 'at_most = "15 C"'),
        ("sustained_slope_percent_per_min", 'at_most = "-0.1 %/min"'),
        ("sustained_temperature_rise_c", 'at_least = "-5 C"'),
    ],
)
def test_a_metric_can_be_limited_when_its_scenario_is_asked_for(metric: str, limit: str) -> None:
    scenario = next(name for name, table in SCENARIO_METRICS.items() if metric in table)
    measure = f'\n[measure]\nscenarios = ["{scenario}"]\n'
    table = "[measure.realtime]\nrate_hz = 30.0\n" if scenario == "realtime" else ""
    constraint = CONSTRAINT.format(metric=metric, limit=limit)
    check(GOOD + constraint + measure + table)
    with pytest.raises(SpecError, match=rf"constraints number 2, metric: {metric} comes from.*Add '{scenario}'"):
        check(GOOD + constraint)


def test_a_percentile_that_the_queries_cannot_carry_is_refused() -> None:
    few = "\n[measure]\nqueries = 100\n"
    check(GOOD + few)
    with pytest.raises(SpecError, match=r"latency_p99_ns needs 662 timed queries.*100"):
        check(GOOD.replace("latency_p90_ns", "latency_p99_ns") + few)
    few = '\n[measure]\nscenarios = ["single_stream"]\n[measure.single_stream]\npercentile = 99\n'
    with pytest.raises(SpecError, match=r"latency_p999_bound_ns needs 6636 timed queries.*662"):
        check(GOOD.replace("latency_p90_ns", "latency_p999_bound_ns") + few)


def test_study_files_of_before_say_protocols() -> None:
    older = parse('\n[measure]\nprotocols = ["offline"]\n[measure.offline]\nsamples = 64\n')
    assert older == parse('\n[measure]\nscenarios = ["offline"]\n[measure.offline]\nsamples = 64\n')
    text = '[study]\nname = "a"\n[measure]\nprotocols = ["offline"]\n'
    assert "called `scenarios` now" in older_keys(SpecSource(Path("study.toml"), text))[0]
    assert older_keys(SpecSource(Path("study.toml"), text.replace("protocols", "scenarios"))) == ()
    with pytest.raises(SpecError, match="older name of `scenarios`: keep one"):
        parse('\n[measure]\nprotocols = ["offline"]\nscenarios = ["offline"]\n')


SERVER = '\n[measure]\nscenarios = ["server"]\n[measure.server]\n'


class TestServer:
    def test_all_loads_get_the_same_requests_by_their_seed(self) -> None:
        first, again, other = (plan(f"{SERVER}seed = {seed}\n").settings["gaps"] for seed in (1, 1, 2))
        assert first == again != other
        assert len(first) == 1000
        assert sum(first) / len(first) == pytest.approx(1e6, rel=0.1)  # a Poisson process in units of its mean gap

    def test_a_recording_keeps_its_pattern_and_states_its_own_pace(self, tmp_path: Path) -> None:
        times = [4.0 * index + (index % 2) for index in range(700)]
        lines = ["# a clinic's morning", "", *(f"{time:.3f}  # s" for time in times)]
        (tmp_path / "clinic.txt").write_text("\n".join(lines))
        settings = plan(f'{SERVER}arrivals = "clinic.txt"\nevery = "60 s"\n', tmp_path).settings
        assert len(settings["gaps"]) == 700
        assert settings["gaps"][1] / settings["gaps"][2] == pytest.approx(5 / 3, rel=1e-5)
        assert settings["users"] == 15  # one request in 4 s

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"1\n2\n3\n", "3 requests in 2 s"),
            (b"0\n" * 700, "700 requests in 0 s"),
            (b"1\n0\n" * 400, "request 1 is at 0.0 s, before the one before it. Sort the times"),
            (b"soon\n" * 700, "no number of seconds"),
            (b"nan\n" * 700, "request 0 is at nan s"),
            (b"1\n" * (1 << 20), "more than 1048576 bytes"),
        ],
    )
    def test_a_recording_that_says_nothing_is_refused(self, content: bytes, found: str, tmp_path: Path) -> None:
        (tmp_path / "clinic.txt").write_bytes(content)
        with pytest.raises(DataError, match=found):
            plan(f'{SERVER}arrivals = "clinic.txt"\n', tmp_path)

    @pytest.mark.parametrize(("gap_s", "more"), [(30, ""), (7, ""), (0.001, "most = 100\n")])
    def test_a_pace_that_no_number_of_users_has_is_refused(self, gap_s: float, more: str, tmp_path: Path) -> None:
        """One user asks three times as often as the first file, none asks as the second one says."""
        (tmp_path / "clinic.txt").write_text("\n".join(f"{index * gap_s:.3f}" for index in range(700)))
        table = f'{SERVER}arrivals = "clinic.txt"\n{more}'
        with pytest.raises(DataError, match=f'at its own pace: a request comes every {gap_s} s.* every = "{gap_s} s"'):
            plan(table, tmp_path)
        assert plan(f'{table}every = "{gap_s} s"\n', tmp_path).settings["users"] == 1
        assert plan(f"{table}users = 3\n", tmp_path).settings["users"] == 3

    def test_a_percentile_needs_its_requests(self) -> None:
        with pytest.raises(SpecError, match=r"percentile 99\.9 needs 6636 queries"):
            parse(f"{SERVER}percentile = 99.9\n")

    def test_a_load_to_state_is_one_that_may_be_tried(self) -> None:
        with pytest.raises(SpecError, match="`most` is 10, which is fewer than `users`, 20"):
            parse(f"{SERVER}users = 20\nmost = 10\n")
        assert plan(f"{SERVER}users = 20\nmost = 20\n").settings["users"] == 20

    def test_a_stated_load_has_the_time_that_its_requests_take(self) -> None:
        """Gaps are drawn: their sum is not the mean times their number."""
        one = plan(f'{SERVER}users = 1\nseed = 3\ntime_limit = "1 s"\nstuck_after = "1 s"\n')
        assert one.limit_s >= sum(one.settings["gaps"]) / 1e6 * 10

    @pytest.mark.parametrize("key", ["max_batch", "instances"])
    def test_batches_and_instances_need_a_server(self, key: str) -> None:
        text = GOOD.replace("width = [1.0, 0.5]", f"width = [1.0, 0.5]\n{key} = [1, 2]")
        with pytest.raises(SpecError, match=r'Add "server" to scenarios'):
            check(text)
        check(text + '\n[measure]\nscenarios = ["server"]\n')
        with pytest.raises(SpecError, match="whole numbers from 1"):
            check(text.replace("[1, 2]", "[0, 2]") + '\n[measure]\nscenarios = ["server"]\n')

    def test_a_deadline_of_coded_images_has_their_decoder(self) -> None:
        text = GOOD.replace("width = [1.0, 0.5]", 'width = [1.0, 0.5]\nimage_codec = ["none", "jpegls"]')
        check(text)
        realtime = '\n[measure]\nscenarios = ["realtime"]\n[measure.realtime]\nrate_hz = 30\n'
        with pytest.raises(SpecError, match="the deadline has no stage for it"):
            check(f'{text}{realtime}stages = ["resize"]\n')
        check(f'{text}{realtime}stages = ["decode", "resize", "overlay"]\n')

    def test_codecs_are_named_as_they_are_kept(self) -> None:
        text = GOOD.replace("width = [1.0, 0.5]", 'width = [1.0, 0.5]\nimage_codec = ["none", "jxl-d1.0"]')
        with pytest.raises(SpecError, match=r"'jxl-d1\.0' is written 'jxl-d1'"):
            check(text)
        with pytest.raises(SpecError, match="expected a codec such as"):
            check(text.replace("jxl-d1.0", "webp"))

    def test_a_batch_is_one_that_the_queue_can_fill(self) -> None:
        text = GOOD.replace("width = [1.0, 0.5]", "width = [1.0, 0.5]\nmax_batch = [1, 8]")
        with pytest.raises(SpecError, match="a batch of 8 never fills while 7 requests wait at most"):
            check(f"{text}{SERVER}queue = 7\n")
        check(f"{text}{SERVER}queue = 8\n")

"""Logs that real trtexec programs printed, from TensorRT 7 to 10: the right numbers, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.targets.tensorrt.trtexec.log import Cause, LogRefused, Run, accept, read_runs
from edgedeploy.targets.tensorrt.version import TrtVersion

# (throughput as printed, queries/s, GPU median ms, latency median ms, latency percentiles)
ACCEPTED: dict[str, tuple[str, float, float, float, float, dict[int, float]]] = {
    "trt8001_jetson_nano_fp16_full.log": ("8.0.1", 24.7474, 24.7474, 39.875, 40.3808, {99: 40.6343}),
    "trt8201_jetson_nano_best_summary.log": ("8.2.1", 72.2544, 72.2544, 13.6698, 13.7999, {99: 14.8121}),
    "trt8400_agx_xavier_batch16_inflated_qps.log": ("8.4.0", 41087.7, 2567.98, 0.388443, 0.401947, {99: 0.420288}),
    "trt8502_orin_nano_fp16_summary.log": (
        "8.5.2", 97.8649, 97.8649, 10.1851, 10.7972, {90: 10.9329, 95: 10.949, 99: 10.9744},
    ),
    "trt100300_jetson_resnet50_nodatatransfers.log": (
        "10.3.0", 318.007, 318.007, 3.14062, 3.14062, {90: 3.14587, 95: 3.14771, 99: 3.15039},
    ),
    "trt101300_enqueue_bound_bf16.log": (
        "10.13.0", 0.562059, 0.562059, 1667.19, 1667.89, {90: 1673.26, 95: 1674.64, 99: 1674.64},
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Cause, str]] = {
    "fail_incompatible_plan_v100001.log": ("foreign_plan", "magicTag"),
    "fail_qdq_int8_weights_constant_folded_v8205.log": ("model_refused", "Identity_0"),
    "fail_qdq_nonpositive_scale_v8601.log": ("model_refused", "Scale coefficients must all be positive"),
    "fail_unknown_option_v100300.log": ("unknown_option", "--workspace 2048, --buildOnly, --explicitBatch"),
    "falsepass_deserialize_skipinference_v101303.log": ("false_pass", "incompatible plan"),
    "trt10_orin_unstable_cov30_2026.log": ("incomplete", "no PASSED line"),
    "trt7_caffe_int8_2runs_jetson_2021.log": ("several_runs", "2 runs"),
    "trt7_qps0_explicit_batch_t4.log": ("zero_throughput", "0 qps"),
    "trt8502_agx_xavier_dumpprofile_no_summary.log": ("no_summary", "no performance summary"),
    "trt8601_h100_build_and_run_nohup_torn_line.log": ("torn", "builder pas["),
    "trt8601_loadengine_verbose_explanations.log": ("unstable", "4.75734 %"),
    "version_probe_exit1_v101303.log": ("failed", "Model missing"),
}


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    return shared / "recorded" / "trtexec"


DATA = Path(__file__).resolve().parents[2] / "data" / "trtexec"


@pytest.mark.fault(27, 28, simulated="trtexec, by recorded logs of real ones")
@pytest.mark.parametrize("path", sorted(DATA.glob("*.log")), ids=lambda path: path.stem)
def test_logs_that_come_with_the_tests(path: Path) -> None:
    cause, told = REFUSED[path.name]
    with pytest.raises(LogRefused, match=told) as caught:
        accept(path.read_text(encoding="utf-8"))
    assert caught.value.cause == cause


@pytest.mark.shared
def test_every_recorded_log_is_expected_here(recorded: Path) -> None:
    assert {path.name for path in recorded.iterdir()} == set(ACCEPTED) | set(REFUSED)


@pytest.mark.shared
@pytest.mark.parametrize("name", ACCEPTED)
def test_recorded_numbers(name: str, recorded: Path) -> None:
    version, items_per_s, queries_per_s, gpu_ms, latency_ms, percentiles = ACCEPTED[name]
    run = accept((recorded / name).read_text(encoding="utf-8"))
    assert str(run.version) == version
    assert run.items_per_s == items_per_s
    assert run.queries_per_s == pytest.approx(queries_per_s, rel=1e-5)
    assert run.spreads["gpu_compute"].median_ms == gpu_ms
    assert run.spreads["latency"].median_ms == latency_ms
    assert run.spreads["latency"].percentiles_ms == percentiles


@pytest.mark.shared
@pytest.mark.parametrize("name", REFUSED)
def test_recorded_refusals(name: str, recorded: Path) -> None:
    cause, told = REFUSED[name]
    text = (recorded / name).read_text(encoding="utf-8")
    with pytest.raises(LogRefused) as caught:
        accept(text)
    assert caught.value.cause == cause
    assert told in caught.value.found
    assert caught.value.log == text


def facts(recorded: Path, name: str) -> tuple[Run, ...]:
    return read_runs((recorded / name).read_text(encoding="utf-8"))


@pytest.mark.shared
def test_what_refused_logs_say_is_read_all_the_same(recorded: Path) -> None:
    first, second = facts(recorded, "trt7_caffe_int8_2runs_jetson_2021.log")
    assert (first.batch, first.queries, first.queries_per_s) == (1, 56, 18.0758)
    assert (second.batch, second.queries) == (4, 17)
    assert second.queries_per_s == pytest.approx(20.0093 / 4)
    assert first.spreads["latency"].percentiles_ms == {99: 57.542}
    assert second.spreads["gpu_compute"].median_ms == 199.573
    (unstable,) = facts(recorded, "trt10_orin_unstable_cov30_2026.log")
    assert (unstable.cov_percent, unstable.passed, unstable.version) == (30.4707, None, None)
    (torn,) = facts(recorded, "trt8601_h100_build_and_run_nohup_torn_line.log")
    assert (torn.queries, torn.cov_percent, len(torn.torn)) == (1457, 25.6499, 1)
    (profiled,) = facts(recorded, "trt8502_agx_xavier_dumpprofile_no_summary.log")
    assert (profiled.compute_capability, profiled.device["Selected Device"]) == ("7.2", "Xavier")
    (probe,) = facts(recorded, "version_probe_exit1_v101303.log")
    assert probe.version == TrtVersion(10, 13, 3)
    assert probe.version is not None and probe.version.exact == "10.13.3+b9"
    (bound,) = facts(recorded, "trt101300_enqueue_bound_bf16.log")
    assert "bound by Enqueue Time" in bound.warnings[0]


@pytest.mark.shared
@pytest.mark.parametrize("name", ACCEPTED)
def test_two_copies_of_a_good_log_are_two_runs(name: str, recorded: Path) -> None:
    text = (recorded / name).read_text(encoding="utf-8")
    with pytest.raises(LogRefused, match="several_runs"):
        accept(text + "\n" + text)


@pytest.mark.shared
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_good_log_that_is_cut_anywhere_is_never_accepted(name: str, recorded: Path) -> None:
    """Whatever is missing at the end: up to the verdict, no prefix of a log is evidence."""
    text = (recorded / name).read_text(encoding="utf-8")
    verdict = text.index("&&&& PASSED")
    for end in range(0, verdict + len("&&&& PASSED"), 7):
        with pytest.raises(LogRefused):
            accept(text[:end])


PASSED = "&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=m.plan"
SPREAD = "min = 2 ms, max = 3 ms, mean = 2.1 ms, median = 2.05 ms, percentile(99%) = 2.9 ms"


def log(*lines: str, summary: str = SPREAD, qps: float = 480.0, verdict: str = PASSED) -> str:
    """A log in the format of 8.5, made up for one test."""
    body = [f"Throughput: {qps:g} qps", f"Latency: {summary}", f"GPU Compute Time: {summary}"]
    return "\n".join([*lines, *(f"[01/01/2026-00:00:00] [I] {line}" for line in body), verdict])


def test_the_made_up_log_is_accepted() -> None:
    assert accept(log()).spreads["gpu_compute"].median_ms == 2.05


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not_trtexec"),
        ("command not found: trtexec", "not_trtexec"),
        (log("[01/01/2026-00:00:00] [E] Engine deserialization failed"), "false_pass"),
        (log(qps=4800), "inconsistent"),
        (log(summary=SPREAD.replace("max = 3", "max = 1")), "inconsistent"),
        (log(summary=SPREAD.replace("median = 2.05", "median = nan")), "inconsistent"),
        (log(summary=SPREAD.replace("max = 3", "max = inf")), "inconsistent"),
        (log("[01/01/2026-00:00:00] [I] Skipped inference phase since --skipInference is added."), "no_summary"),
        (
            log("[01/01/2026-00:00:00] [W] * GPU compute time is unstable, with coefficient of variance = 2.51%."),
            "unstable",
        ),
        (
            log(
                "[01/01/2026-00:00:00] [W] [TRT] Using an engine plan file across different models of devices is not "
                "recommended and is likely to affect performance or even cause errors."
            ),
            "foreign_plan",
        ),
        (log("[01/01/2026-00:00:00] [I] half a li[01/01/2026-00:00:00] [I] ne"), "torn"),
        (log(verdict=PASSED.replace("PASSED", "FAILED")), "failed"),
        (PASSED, "no_summary"),
    ],
)
def test_logs_that_are_no_evidence(text: str, cause: Cause) -> None:
    with pytest.raises(LogRefused) as caught:
        accept(text)
    assert caught.value.cause == cause


def test_stability_at_the_limit_is_accepted() -> None:
    line = "[01/01/2026-00:00:00] [W] * GPU compute time is unstable, with coefficient of variance = 2.5%."
    assert accept(log(line)).cov_percent == 2.5


def test_empty_time_stamps_of_silenced_lines_are_not_torn() -> None:
    stamp = "[01/01/2026-00:00:00]"
    assert accept(log(f"{stamp} {stamp} {stamp} [I] [TRT] Detected 1 inputs and 1 output network tensors.")).torn == ()


@pytest.mark.parametrize(
    ("code", "text"),
    [("8001", "8.0.1"), ("8502", "8.5.2"), ("100300", "10.3.0"), ("101303", "10.13.3"), ("110000", "11.0.0")],
)
def test_version_codes(code: str, text: str) -> None:
    assert str(TrtVersion.from_code(code)) == text
    assert TrtVersion.from_text(text) == TrtVersion.from_code(code)

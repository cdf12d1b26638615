"""Readers of sysfs on made-up trees, each after the files that one kind of board has, and on this machine's own /sys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedeploy.runtime.sensors import environment, jetson, sysfs

CPU = "sys/devices/system/cpu"


def made_up_tree(root: Path, files: dict[str, str]) -> Path:
    """No board: files with the names and the contents that a kernel would show."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
    return root


def cpufreq(
    cores: int, governor: str = "schedutil", khz: tuple[int, int, int] = (600000, 2400000, 1500000)
) -> dict[str, str]:
    names = ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq")
    files = {f"{CPU}/cpu{i}/cpufreq/scaling_governor": governor for i in range(cores)}
    files.update({f"{CPU}/cpu{i}/cpufreq/{n}": str(k) for i in range(cores) for n, k in zip(names, khz, strict=True)})
    return files


def test_a_made_up_intel_cart(tmp_path: Path) -> None:
    counts = {0: (3, 7), 1: (2, 7)}
    files = {f"{CPU}/cpu{i}/thermal_throttle/core_throttle_count": str(core) for i, (core, _) in counts.items()}
    files |= {f"{CPU}/cpu{i}/thermal_throttle/package_throttle_count": str(both) for i, (_, both) in counts.items()}
    files |= {
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone0/temp": "61000",
        "sys/class/thermal/cooling_device0/type": "Processor",
        "sys/class/thermal/cooling_device0/cur_state": "0",
        "sys/class/thermal/cooling_device1/type": "TCC Offset",
        "sys/class/thermal/cooling_device1/cur_state": "10",
        "sys/class/drm/card0/gt_act_freq_mhz": "350",
    }
    root = made_up_tree(tmp_path, {**cpufreq(2, "powersave"), **files})
    assert sysfs.throttle_events(root) == {"core": 5, "package": 7}
    assert sysfs.throttling_now(root) == []
    assert sysfs.temperatures_c(root) == {"thermal_zone0 x86_pkg_temp": 61.0}
    assert (sysfs.gpu_mhz(root), sysfs.cpu_mhz(root), sysfs.governor(root)) == (350.0, 1500.0, "powersave")


def test_a_made_up_jetson(tmp_path: Path) -> None:
    root = made_up_tree(
        tmp_path,
        {
            **cpufreq(2, khz=(2201600, 2201600, 2201600)),
            "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000",
            "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000",
            "sys/class/hwmon/hwmon0/name": "soctherm_oc",
            "sys/class/hwmon/hwmon0/oc1_event_cnt": "0",
            "sys/class/hwmon/hwmon0/oc3_event_cnt": "37",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "52562",
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": "-256000",
            "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0",
            "sys/class/thermal/cooling_device0/cur_state": "4",
            "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
            "etc/nvpmodel.conf": "# < POWER_MODEL ID=2 NAME=OLD >\n< POWER_MODEL ID=2 NAME=MODE_30W >",
        },
    )
    assert sysfs.throttle_events(root) == {"oc1_event_cnt": 0, "oc3_event_cnt": 37}
    assert sysfs.throttling_now(root) == ["thermal-cpufreq-0"]
    assert sysfs.temperatures_c(root) == {"thermal_zone0 cpu-thermal": 52.562}
    assert (sysfs.gpu_mhz(root), sysfs.emc_mhz(root)) == (1300.5, 3199.0)
    assert sysfs.clocks_locked(root)
    assert jetson.power_mode(root) == "MODE_30W (2)"


def test_a_made_up_raspberry_pi(tmp_path: Path) -> None:
    flags = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    root = made_up_tree(tmp_path, {**cpufreq(4, "ondemand"), flags: "50005"})
    assert sysfs.throttling_now(root) == ["under-voltage", "throttled"]
    assert sysfs.throttle_events(root) == {
        "under-voltage since boot": 1,
        "frequency capped since boot": 0,
        "throttled since boot": 1,
        "soft temperature limit since boot": 0,
    }
    assert not sysfs.clocks_locked(root)


def test_clocks_of_the_cores_that_count(tmp_path: Path) -> None:
    files = {
        f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": str(khz) for core, khz in enumerate((600000, 1800000, 2400000))
    }
    root = made_up_tree(tmp_path, files)
    assert sysfs.cpu_mhz(root, [1, 2]) == 2100.0
    assert sysfs.cpu_mhz(root) == 1600.0


def test_cores_without_cpufreq_are_read_from_cpuinfo(tmp_path: Path) -> None:
    lines = "processor\t: 0\ncpu MHz\t\t: 2400.000\nprocessor\t: 1\ncpu MHz\t\t: 2600.000"
    root = made_up_tree(tmp_path, {"proc/cpuinfo": lines})
    assert (sysfs.cpu_mhz(root), sysfs.cpu_mhz(root, [1])) == (2500.0, 2600.0)


def test_a_board_without_sensors_gives_reasons_and_no_numbers(tmp_path: Path) -> None:
    found = environment.snapshot(tmp_path)
    values = {name: value for name, value in found.items() if name != "missing"}
    assert set(values.values()) == {None}
    assert set(found["missing"]) == set(values)
    assert all(found["missing"].values())


def test_a_sensor_that_may_not_be_read_is_missing_with_that_reason(tmp_path: Path) -> None:
    root = made_up_tree(tmp_path, cpufreq(1))
    governor = root / f"{CPU}/cpu0/cpufreq/scaling_governor"
    governor.unlink()
    governor.mkdir()  # reading a folder fails whoever asks, root too
    found = environment.snapshot(root)
    assert found["governor"] is None
    assert "scaling_governor" in found["missing"]["governor"]
    assert found["cpu_mhz"] == 1500.0


def test_this_machines_own_files() -> None:
    found = environment.snapshot()
    assert found["memory_available_bytes"] > 0
    assert found["load_1m"] >= 0
    assert found["missing"].keys() == {name for name, value in found.items() if value is None}
    mhz = found["cpu_mhz"]
    assert mhz is None or 100 < mhz < 10_000
    for celsius in (found["temperatures_c"] or {}).values():
        assert -50 < celsius < 150


@pytest.mark.skipif(not Path("/sys/class/thermal/thermal_zone0").exists(), reason="this machine has no thermal zone")
def test_this_machines_temperatures_are_those_of_its_files() -> None:
    kernel = Path("/sys/class/thermal/thermal_zone0")
    name = f"thermal_zone0 {(kernel / 'type').read_text().strip()}"
    assert sysfs.temperatures_c()[name] == pytest.approx(int((kernel / "temp").read_text()) / 1000, abs=15)


@pytest.mark.skipif(not Path("/sys/devices/system/cpu/cpu0/cpufreq").exists(), reason="this machine has no cpufreq")
def test_this_machines_governor_is_one_its_kernel_offers() -> None:
    offered = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors").read_text().split()
    assert set(sysfs.governor().split("+")) <= set(offered)


class TestJetsonTools:
    @pytest.mark.shared
    def test_recorded_clocks_of_an_agx_orin(self, shared: Path) -> None:
        path = shared / "recorded" / "jetson" / "jetson_clocks_show_agx_orin_maxn.txt"
        shown = jetson.parse_clocks(path.read_text(encoding="utf-8"))
        assert shown.power_mode == "MAXN"
        assert set(shown.governors) == {"cpu0", "cpu1", "cpu10", "cpu11"}
        assert set(shown.governors.values()) == {"schedutil"}
        assert shown.clocks["cpu10"] == jetson.ClockRange(729.6, 2201.6, 1113.6)
        assert shown.clocks["GPU"] == jetson.ClockRange(306.0, 1300.5, 306.0)
        assert shown.clocks["EMC"] == jetson.ClockRange(204.0, 3199.0, 2133.0)
        assert shown.clocks["DLA0_CORE"].now_mhz == 1600.0
        assert not shown.locked

    def test_locked_means_cores_gpu_and_memory(self) -> None:
        text = (
            "cpu0: Online=1 Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0\n"
            "GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000\n"
            "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride={}\n"
            "NV Power Mode: MAXN\n"
        )
        assert jetson.parse_clocks(text.format(1)).locked
        assert not jetson.parse_clocks(text.format(0)).locked

    def test_query_names_number_and_name(self) -> None:
        assert jetson.parse_query("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n") == (2, "MODE_15W_6CORE")

    @pytest.mark.parametrize("text", ["", "Error: Run this script as a root user", "NV Power Mode: MAXN\n"])
    def test_outputs_of_another_form_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="printed"):
            jetson.parse_query(text)
        with pytest.raises(ValueError, match="printed"):
            jetson.parse_clocks(text)

    def test_a_status_without_a_mode_is_a_reason(self, tmp_path: Path) -> None:
        made_up_tree(tmp_path, {"var/lib/nvpmodel/status": "fmode:quiet"})
        with pytest.raises(LookupError, match="names no mode"):
            jetson.power_mode(tmp_path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="jetson_clocks --show wants root")
    def test_a_simulated_tool_is_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A simulation: a script in the place of NVIDIA's program."""
        tool = tmp_path / "jetson_clocks"
        tool.write_text(
            "#!/bin/sh\ncat <<END\n"
            "cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=2201600\n"
            "GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000\n"
            "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0\n"
            "NV Power Mode: MAXN\nEND\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        shown = environment.snapshot()["jetson_clocks"]
        assert shown == {"locked": False, "emc_mhz": 2133.0, "gpu_mhz": 306.0, "power_mode": "MAXN"}

"""Power sources on made-up trees and recorded tegrastats lines; energy with its idle share taken out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fault_kit import wait_for

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.energy import LEAST_SAMPLES, Energy, energy_of, energy_text, trapezoid
from edgedeploy.runtime.sensors import energy, power
from edgedeploy.runtime.sensors.energy import measure_energy

DATA = Path(__file__).resolve().parents[2] / "data" / "tegrastats"


def made_up_tree(root: Path, files: dict[str, str]) -> Path:
    """No board: files with the names and the contents that a kernel would show."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
    return root


def rapl_tree(root: Path, packages: dict[int, tuple[int, int]]) -> Path:
    """Made up: packages with their counter and range in microjoules, a sub-zone and a platform zone beside them."""
    files = {}
    for number, (uj, span) in packages.items():
        zone = f"sys/class/powercap/intel-rapl:{number}"
        files |= {f"{zone}/name": f"package-{number}", f"{zone}/energy_uj": str(uj)}
        files |= {f"{zone}/max_energy_range_uj": str(span)}
    inside, platform = "sys/class/powercap/intel-rapl:0:0", "sys/class/powercap/intel-rapl:9"
    for zone, name in ((inside, "core"), (platform, "psys")):
        files |= {f"{zone}/name": name, f"{zone}/energy_uj": "77", f"{zone}/max_energy_range_uj": "1000"}
    return made_up_tree(root, files)


def set_uj(root: Path, package: int, uj: int) -> None:
    (root / f"sys/class/powercap/intel-rapl:{package}/energy_uj").write_text(f"{uj}\n")


def seconds() -> Callable[[], int]:
    """A clock that is one second further at every look."""
    ticks: Iterator[int] = iter(range(10**9, 10**12, 10**9))
    return lambda: next(ticks)


class TestRapl:
    def test_packages_are_added_and_nothing_else(self, tmp_path: Path) -> None:
        root = rapl_tree(tmp_path, {0: (1_000_000, 262_143_328_850), 1: (5_000_000, 262_143_328_850)})
        source = power.Rapl(root, seconds())
        assert source.name == "RAPL package-0 + package-1"
        set_uj(root, 0, 13_000_000)
        set_uj(root, 1, 8_500_000)
        assert source.read() == pytest.approx(15.5)
        assert source.read() == pytest.approx(15.5)

    def test_a_counter_that_wraps_goes_on(self, tmp_path: Path) -> None:
        root = rapl_tree(tmp_path, {0: (262_143_000_000, 262_143_328_850)})
        source = power.Rapl(root, seconds())
        set_uj(root, 0, 671_150)  # 328 850 to the end of the range, 671 150 past it
        assert source.read() == pytest.approx(1.0)
        set_uj(root, 0, 2_671_150)
        assert source.read() == pytest.approx(3.0)

    def test_a_counter_that_was_reset_is_no_wrap(self, tmp_path: Path) -> None:
        root = rapl_tree(tmp_path, {0: (200_000_000_000, 262_143_328_850)})
        source = power.Rapl(root, seconds())
        set_uj(root, 0, 0)  # as a wrap this would be 62 kJ in a second
        with pytest.raises(ValueError, match="reset"):
            source.read()

    def test_without_root_the_reason_is_that(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = rapl_tree(tmp_path, {0: (1, 1000)})
        read = Path.read_text

        def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", refuse)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LookupError, match="intel-rapl:0/energy_uj may be read by root only"):
            power.find_source(root)


class TestRails:
    def test_hwmon_rails_of_an_orin_nano(self, tmp_path: Path) -> None:
        chip = "sys/class/hwmon/hwmon1"
        files = {f"{chip}/name": "ina3221", f"{chip}/in7_label": "sum of shunt voltages"}
        for channel, (label, mv, ma) in enumerate(
            (("VDD_IN", 4984, 1856), ("VDD_CPU_GPU_CV", 4976, 400), ("VDD_SOC", 4968, 600)), start=1
        ):
            files |= {f"{chip}/in{channel}_label": label, f"{chip}/in{channel}_input": str(mv)}
            files |= {f"{chip}/curr{channel}_input": str(ma)}
        source = power.InaRails(made_up_tree(tmp_path, files))
        assert source.name == "INA VDD_IN"
        assert source.read() == pytest.approx(4.984 * 1.856)

    def test_total_of_an_agx_orin_is_a_sum_without_the_rail_inside_another(self, tmp_path: Path) -> None:
        rails = {
            0: [("VDD_GPU_SOC", 19000, 100), ("VDD_CPU_CV", 19000, 50), ("VIN_SYS_5V0", 5000, 800)],
            1: [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 60), ("NC", 0, 0)],
        }
        files = {}
        for number, channels in rails.items():
            chip = f"sys/class/hwmon/hwmon{number}"
            files[f"{chip}/name"] = "ina3221"
            for channel, (label, mv, ma) in enumerate(channels, start=1):
                files |= {f"{chip}/in{channel}_label": label, f"{chip}/in{channel}_input": str(mv)}
                files |= {f"{chip}/curr{channel}_input": str(ma)}
        source = power.InaRails(made_up_tree(tmp_path, files))
        assert source.read() == pytest.approx(1.9 + 0.95 + 4.0)

    def test_iio_rails_of_a_nano(self, tmp_path: Path) -> None:
        device = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
        files = {f"{device}/rail_name_0": "POM_5V_IN", f"{device}/in_power0_input": "2875"}
        files |= {f"{device}/rail_name_1": "POM_5V_GPU", f"{device}/in_power1_input": "40"}
        source = power.InaRails(made_up_tree(tmp_path, files))
        assert (source.name, source.read()) == ("INA POM_5V_IN", pytest.approx(2.875))

    def test_a_part_is_never_taken_for_the_total(self) -> None:
        with pytest.raises(LookupError, match="VDD_GPU, VDD_CPU_SOC_MSS, VIN_SYS_5V0"):
            power.total_rails(["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"])

    def test_no_source_at_all_has_every_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LookupError) as caught:
            power.find_source(tmp_path)
        assert str(caught.value).startswith("no sensor: ")
        for word in ("INA", "tegrastats", "RAPL"):
            assert word in str(caught.value)


def simulated_tegrastats(folder: Path, lines: list[str]) -> str:
    """A simulation of NVIDIA's program: it prints recorded lines, and then waits to be ended."""
    (folder / "lines").write_text("".join(f"{line}\n" for line in lines))
    tool = folder / "tegrastats"
    tool.write_text(f"#!/bin/sh\ncat {folder}/lines\nexec sleep 60\n")
    tool.chmod(0o755)
    return str(tool)


class TestTegrastats:
    def test_power_is_the_value_now_of_the_total(self, tmp_path: Path) -> None:
        line = (DATA / "orin_nano_l4t36.txt").read_text().strip()
        source = power.Tegrastats(simulated_tegrastats(tmp_path, [line] * 3))
        try:
            assert source.name == "tegrastats VDD_IN"
            assert source.read() == pytest.approx(16.321)
        finally:
            source.close()

    def test_thor_prints_no_total(self, tmp_path: Path) -> None:
        line = (DATA / "agx_thor_l4t38.txt").read_text().strip()
        with pytest.raises(LookupError, match="total"):
            power.Tegrastats(simulated_tegrastats(tmp_path, [line]))

    def test_a_rail_that_goes_missing_is_a_failure(self, tmp_path: Path) -> None:
        line = (DATA / "xavier_nx_jp4.txt").read_text().strip()
        source = power.Tegrastats(simulated_tegrastats(tmp_path, [line, line.rpartition(" VDD_SOC")[0]]))
        try:
            with pytest.raises(ValueError, match="cut"):
                source.read()
        finally:
            source.close()


def recorded(kind: str = "power", **changes: Any) -> dict[str, Any]:
    """Made-up series with known answers: 5 W idle, 9 W under the candidate, 8 W under the baseline, every 0.1 s."""
    watts = [5.0] * 30 + [9.0] * 30 + [8.0] * 60 + [9.0] * 30 + [5.0] * 30
    counter = [0.0]
    for value in watts:
        counter.append(counter[-1] + value * 0.1)
    values = watts if kind == "power" else counter

    def window(at_s: float) -> list[int]:
        return [round((at_s + 0.2) * 1e9), round((at_s + 2.8) * 1e9)]

    def stretch(at_s: float) -> dict[str, Any]:
        start_ns, end_ns = window(at_s)
        return {"side": "candidate", "start_ns": start_ns, "end_ns": end_ns, "queries": 13}

    raw = {
        "source": "made-up rail",
        "scope": "nothing real",
        "kind": kind,
        "period_s": 0.1,
        "samples": [[round(index * 1e8), value] for index, value in enumerate(values)],
        "waits": [window(0), window(15)],
        "stretches": [stretch(3), stretch(12)],
    }
    return {**raw, **changes}


class TestEnergy:
    def test_trapezoid_of_a_ramp(self) -> None:
        assert trapezoid([0.0, 1.0, 3.0], [2.0, 4.0, 8.0]) == pytest.approx(3.0 + 12.0)

    @pytest.mark.parametrize("kind", ["power", "energy"])
    def test_idle_is_taken_out_and_the_rest_shared_by_the_queries(self, kind: str) -> None:
        found = energy_of(recorded(kind), "candidate")
        assert isinstance(found, Energy)
        # 2 stretches of 2.6 s at 9 W above 5 W idle, 26 queries
        assert found.idle_w == pytest.approx(5.0)
        assert found.gross_j == pytest.approx(2 * 2.6 * 9 / 26)
        assert found.energy_j == pytest.approx(2 * 2.6 * 4 / 26)
        assert (found.source, found.queries) == ("made-up rail", 26)

    def test_text_names_the_source_and_both_energies(self) -> None:
        text = energy_text(recorded())
        for words in ("made-up rail", "nothing real", "5 W", "1.8 J", "0.8 J", "26 queries"):
            assert words in text
        assert energy_text({"missing": "no sensor: none"}) == "not available: no sensor: none"

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"missing": "no sensor: no INA"}, "no sensor: no INA"),
            ({"stretches": []}, "no stretch"),
            ({"samples": [[0, 5.0], [18 * 10**9, 5.0]]}, "0 samples in a window"),
            ({"samples": [[index * 10**8, 5.0] for index in range(180)]}, "does not stand out"),
            ({"samples": [[index * 10**8, 5.0 if index < 90 else 7.0] for index in range(180)]}, "not steady"),
            ({"samples": [[index * 10**8, 9.0] for index in range(100)]}, "do not cover"),
        ],
    )
    def test_what_cannot_be_defended_is_a_reason(self, changes: dict[str, Any], reason: str) -> None:
        found = energy_of(recorded(**changes), "candidate")
        assert isinstance(found, str)
        assert reason in found

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
    def test_numbers_that_no_sensor_can_give_are_refused(self, bad: float) -> None:
        raw = recorded()
        raw["samples"][40][1] = bad
        with pytest.raises(MeasurementError, match="no sensor can give"):
            energy_of(raw, "candidate")

    def test_a_clock_that_runs_backwards_is_refused(self) -> None:
        raw = recorded()
        raw["samples"][40][0] = 0
        with pytest.raises(MeasurementError):
            energy_of(raw, "candidate")


class SimulatedBoard:
    """A simulation: a source whose power is 3 W, and 7 W while one of its workers says that it works."""

    kind = "power"
    name = "simulated rail"
    scope = "a simulation"
    period_s = 0.005

    def __init__(self) -> None:
        self.working = False
        self.closed = False
        self.cores: list[int] = []
        self.looks = 0

    def read(self) -> float:
        self.looks += 1
        return 7.0 if self.working else 3.0

    def close(self) -> None:
        self.closed = True

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert do == "stretch"
        self.working = True
        start_ns = time.monotonic_ns()
        energy.time.sleep(arguments["for_ns"] / 1e9)
        end_ns = time.monotonic_ns()
        self.working = False
        return {"start_ns": start_ns, "end_ns": end_ns, "queries": 10}

    def sleep(self, seconds: float) -> None:
        """At least so long, and until the sensor was looked at often enough: a busy machine lets its thread wait."""
        time.sleep(seconds)
        looked = self.looks
        wait_for("the thread that looks at the sensor", lambda: self.looks >= looked + LEAST_SAMPLES + 2)


class TestSampling:
    def test_a_simulated_board_end_to_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        board = SimulatedBoard()
        clock = SimpleNamespace(sleep=board.sleep, monotonic_ns=time.monotonic_ns)
        monkeypatch.setattr(energy, "time", clock)
        raw = measure_energy({"candidate": board, "baseline": board}, lambda: board, stretch_s=0.3)
        assert board.closed
        assert [item["side"] for item in raw["stretches"]] == ["candidate", "baseline", "baseline", "candidate"]
        found = energy_of(json.loads(json.dumps(raw)), "candidate")
        assert isinstance(found, Energy)
        assert found.idle_w == pytest.approx(3.0, rel=0.02)
        # 4 W above idle, for as long as the stretches took: a busy machine sleeps longer than it was told to, and looks at
        # the sensor less often. A step between two looks is as uncertain as they are apart.
        worked = [(item["start_ns"], item["end_ns"]) for item in raw["stretches"] if item["side"] == "candidate"]
        assert len(worked) == 2 and min(end - start for start, end in worked) >= 0.3e9
        looks = [at_ns for at_ns, _ in raw["samples"]]
        apart_s = max(after - before for before, after in pairwise(looks)) / 1e9
        worked_s = sum(end - start for start, end in worked) / 1e9
        assert found.energy_j * found.queries == pytest.approx(4.0 * worked_s, rel=0.02, abs=4.0 * 2 * 2 * apart_s / 2)

    def test_a_sensor_that_fails_midway_costs_the_energy_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        board, gone = SimulatedBoard(), threading.Event()
        values = iter([3.0] * 20)

        def read() -> float:
            try:
                return next(values)
            except StopIteration:
                gone.set()
                raise OSError("the rail went away") from None

        board.read = read  # type: ignore[method-assign]
        clock = SimpleNamespace(sleep=lambda seconds: gone.wait(60), monotonic_ns=time.monotonic_ns)
        monkeypatch.setattr(energy, "time", clock)
        raw = measure_energy({"candidate": board}, lambda: board, stretch_s=0.1)
        assert raw == {"missing": "simulated rail failed: the rail went away"}

    def test_no_sensor_is_a_reason(self) -> None:
        def find() -> power.PowerSource:
            raise LookupError("no sensor: nothing here")

        assert measure_energy({}, find) == {"missing": "no sensor: nothing here"}

"""Damaged words of NVIDIA's tools through what reads them: lines of tegrastats, logs and export files of trtexec."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import ROOT
from benchmarks.shared.mutations import mutate_bytes, mutate_json

sys.path.insert(0, str(ROOT / "tests"))  # simulated_trtexec

from edgedeploy.errors import MeasurementError
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.parity import check_executed
from edgedeploy.runtime.sensors.power import total_rails
from edgedeploy.runtime.sensors.tegrastats import TegrastatsError, parse
from edgedeploy.targets.tensorrt.trtexec.exports import (
    executed,
    join,
    read_layers,
    read_outputs,
    read_profile,
    read_times,
)
from edgedeploy.targets.tensorrt.trtexec.log import accept, read_runs

DATA: Final = ROOT / "tests" / "data"
NUMBERS: Final = ("0", "-1", "7" * 5000, "1.2.3", ".", "nan", "inf", "1e999", "٣", "", "-", "0x10", "9" * 30)
"""What is put in the place of a number in a line."""


def mutate_line(text: str, rng: random.Random) -> str:
    """A line with other numbers, with words that are gone, come twice or change places; else with other bytes."""
    words = text.split(" ")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, way = rng.randrange(len(words)), rng.randrange(6)
        if way == 0:
            del words[at]
        elif way == 1:
            words.insert(at, rng.choice(words))
        elif way == 2:
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        elif way <= 4 and (digits := [place for place, char in enumerate(words[at]) if char.isdigit()]):
            place = rng.choice(digits)
            words[at] = words[at][:place] + rng.choice(NUMBERS) + words[at][place + 1 :]
        else:
            damaged = mutate_bytes(" ".join(words).encode(), rng).decode("utf-8", "replace")
            words = damaged.split(" ")
        if not words:
            return ""
    return " ".join(words)


class TegrastatsLines:
    """Damaged lines of nine boards, read as the power source reads them: the first line, then one by its rails."""

    def __init__(self, recording: object, folder: Path) -> None:
        files = sorted((DATA / "tegrastats").glob("*.txt"))
        self._lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines() if line]

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        line = rng.choice(self._lines)
        return line[:40], mutate_line(line, rng).encode("utf-8", "surrogatepass")

    def read(self, what: str, data: bytes) -> None:
        line = data.decode("ascii", errors="replace")
        try:
            names = [rail.name for rail in parse(line).rails]
            chosen = total_rails(names)
            reading = parse(line, names)
            watts = sum(reading.rail_mw(name) for name in chosen) / 1000
        except (TegrastatsError, LookupError) as exc:  # what the source of power takes for a reason that there is none
            raise MeasurementError("read a line of tegrastats", str(exc)[:100], "Another source") from exc
        assert isinstance(watts, float)


class TrtexecWords:
    """Damaged logs and export files of a run, through the readers that a measurement with trtexec has."""

    def __init__(self, recording: object, folder: Path) -> None:
        logs = sorted((DATA / "trtexec").glob("*.log"))
        self._texts = {path.name: path.read_text(encoding="utf-8") for path in logs}
        self._texts |= {f"{release}.log": _log(release) for release in ("8.2", "10")}
        self._exports = _exports(folder)
        self._places = [*self._texts, *[f"{release}.log" for release in ("8.2", "10")] * 2, *self._exports]

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice(self._places)
        if what in self._exports:
            return what, mutate_json(self._exports[what], rng)
        lines = self._texts[what].splitlines()
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(lines))
            lines[at] = mutate_line(lines[at], rng)
        return what, "\n".join(lines).encode("utf-8", "surrogatepass")

    def read(self, what: str, data: bytes) -> None:
        text = data.decode("utf-8", errors="replace")
        if what in self._texts:
            read_runs(text)
            accept(text)
            return
        readers: Mapping[str, Callable[[], Any]] = {
            "times.json": lambda: read_times(text, warmup_ms=200).percentile_ms(90),
            "profile.json": lambda: read_profile(text),
            "layers.json": lambda: self._layers(text),
            "outputs.json": lambda: read_outputs(text, (TensorSpec("mask", "float32", (1, 2, 2, 2)),)),
        }
        readers[what]()

    def _layers(self, text: str) -> None:
        layers = join(read_layers(text), read_profile(json.dumps(self._exports["profile.json"])))
        check_executed("float16", executed(layers))


def _log(release: str) -> str:
    """A run that passed, in the words of that release."""
    import contextlib
    import io

    import simulated_trtexec as simulated

    title = (
        f"TensorRT.trtexec [TensorRT v{'8205' if release == '8.2' else '101303'}] # trtexec --onnx=model.onnx --batch=1"
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        simulated.say(f"&&&& RUNNING {title}")
        simulated.info("Selected Device: Simulated Orin")
        simulated.info("Compute Capability: 8.7")
        simulated.report([2.0, 2.001, 1.999, 2.0] * 4, release)
        simulated.say(f"&&&& PASSED {title}")
    return printed.getvalue()


def _exports(folder: Path) -> dict[str, Any]:
    import simulated_trtexec as simulated

    path = folder / "times.json"
    simulated.export_times(str(path), [2.0, 2.001, 1.999] * 4, 200, "10")
    layers = [
        {"Name": name, "LayerType": "Cask", "ParameterType": "Convolution", "Weights": {"Type": "Half"}}
        for name in "abc"
    ]
    share = 100 / len(layers)
    rows = [
        {"name": layer["Name"], "timeMs": 1.0, "averageMs": 0.1, "medianMs": 0.09, "percentage": share}
        for layer in layers
    ]
    return {
        "times.json": json.loads(path.read_text(encoding="utf-8")),
        "layers.json": {"Layers": layers, "Bindings": ["image", "mask"]},
        "profile.json": [{"count": 10}, *rows],
        "outputs.json": [{"name": "mask", "dimensions": "1x2x2x2", "values": [0.1 * place for place in range(8)]}],
    }

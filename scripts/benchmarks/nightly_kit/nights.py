"""Real short nights on this host, whatever else runs on it, through the nightly lab's own runner.

A signed bundle of a small network is measured beside its frozen portable model. First come A/A nights, then nights on which
the bundle has a tenth more layers, each the first night of its slowdown: an alarm is no part of the history.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import ROOT
from benchmarks.nightly_kit.asked import Asked
from benchmarks.shared.rows import Row, RowMaker

sys.path.append(str(ROOT / "tests"))  # night_kit and product_kit

LAYERS, CHANNELS = 60, 16
SLOWER_LAYERS: Final = 66
METRIC: Final = "latency_p50_ns"
FIRST_NIGHT: Final = date(2026, 1, 1)
FOUND: Final = 0.95

LAB: Final = """\
[lab]
name = "real nights"
budget = "1 h"
out = "out"

[measure]
queries = 192
block = 12
cold_starts = 0
retries = 0
max_drift = 1000.0
max_spread = 1000.0
max_background_cores = 1000.0
max_heating_c = 1000.0
max_clock_drift = 1000.0

[[boards]]
name = "here"
kind = "local"

[[entries]]
id = "net"
bundle = "bundle"
trust = "{trust}"
metrics = ["latency_p50_ns"]
"""


@dataclass(frozen=True)
class Found:
    """Of each night: status of the series, its loss, how many sessions it took; and the machine's load then."""

    statuses: tuple[str, ...]
    losses: tuple[float, ...]
    sessions: tuple[int, ...]
    loads: tuple[float, ...]

    @property
    def alarms(self) -> int:
        return self.statuses.count("regression")

    def text(self) -> str:
        spread = f"losses {np.median(self.losses):+.1%}, sd {np.std(self.losses):.1%}" if self.losses else "no losses"
        low, high = min(self.loads), max(self.loads)
        reruns = sum(count > 2 for count in self.sessions)
        return f"{self.alarms} of {len(self.statuses)}; {spread}, {reruns} nights rerun, load {low:.1f} to {high:.1f}"


def real_nights_calm(asked: Asked) -> Row:
    """A/A: any alarm is false."""
    calm, _ = _nights(asked.nights)
    return Row(f"{asked.nights} real A/A nights on this host: alarms", calm.text(), "none", calm.alarms == 0)


def real_nights_slower(asked: Asked) -> Row:
    _, slower = _nights(asked.nights)
    share = slower.alarms / len(slower.statuses)
    what = f"real nights with {SLOWER_LAYERS} layers in the place of {LAYERS}: found on night 1"
    return Row(what, slower.text(), f"{FOUND:.0%}", share >= FOUND)


@lru_cache(maxsize=1)
def _nights(calm: int) -> tuple[Found, Found]:
    import night_kit
    import product_kit

    from edgedeploy.nightly.place import Lab

    with tempfile.TemporaryDirectory(prefix="edgedeploy-nights-") as name:
        folder = Path(name)
        key, trust = product_kit.make_key(folder)
        (folder / "lab.toml").write_text(LAB.format(trust=trust.name), encoding="utf-8")
        planted = max(1, calm // 3)
        found = []
        for layers, first, count in ((LAYERS, 0, calm), (SLOWER_LAYERS, calm, planted)):
            network = _Network(layers)
            files = product_kit.make_files(steps=product_kit.NO_STEPS, network=network)
            product_kit.write_signed(folder / "bundle", night_kit.with_reference(files), key)
            lab = Lab.load(folder / "lab.toml")
            found.append(_found([_one(lab, first + number) for number in range(count)]))
        return found[0], found[1]


def _one(lab: Any, number: int) -> Mapping[str, Any]:
    from edgedeploy.nightly.night import run_night

    written = run_night(lab, str(FIRST_NIGHT + timedelta(days=number)))
    (verdict,) = written.night.verdicts
    series = [item for item in verdict.series if item.metric == METRIC]
    status = series[0].status if series else verdict.outcome
    told = series[0].reason if series else verdict.reason
    sys.stderr.write(f"night {number + 1}: {status}: {told}\n")
    loss = series[0].loss if series else None
    return {
        "status": status,
        "loss": math.nan if loss is None else loss,
        "sessions": series[0].sessions if series else 0,
        "load": os.getloadavg()[0],
    }


def _found(nights: list[Mapping[str, Any]]) -> Found:
    return Found(
        tuple(night["status"] for night in nights),
        tuple(night["loss"] for night in nights if math.isfinite(night["loss"])),
        tuple(night["sessions"] for night in nights),
        tuple(night["load"] for night in nights),
    )


@dataclass(frozen=True)
class _Network:
    """So many convolutions of the same size between one that widens the image and a head."""

    layers: int

    def __call__(self, path: Path) -> Path:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(0)
        shapes = {"wide": (CHANNELS, 3, 1, 1), "head": (2, CHANNELS, 1, 1)}
        shapes |= {f"w{number}": (CHANNELS, CHANNELS, 3, 3) for number in range(self.layers)}
        tensors = [
            numpy_helper.from_array((rng.normal(size=s) * math.sqrt(2 / math.prod(s[1:]))).astype(np.float32), name)
            for name, s in shapes.items()
        ]
        nodes, source = [helper.make_node("Conv", ["image", "wide"], ["x"], name="wide")], "x"
        for number in range(self.layers):
            nodes.append(
                helper.make_node("Conv", [source, f"w{number}"], [f"c{number}"], name=f"conv{number}", pads=[1] * 4)
            )
            nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], name=f"relu{number}"))
            source = f"r{number}"
        nodes.append(helper.make_node("Conv", [source, "head"], ["out"], name="head"))
        sides = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 16, 16])
            for name, channels in (("image", 3), ("out", 2))
        ]
        graph = helper.make_graph(nodes, "net", sides[:1], sides[1:], tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


ROWS: Final[tuple[RowMaker, ...]] = (real_nights_calm, real_nights_slower)

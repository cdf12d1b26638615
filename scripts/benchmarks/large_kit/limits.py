"""Memory on the host that builds: calibration, a large encoder from export to golden outputs, and a model past 2 GB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Final

from benchmarks import FOLDER
from benchmarks.shared.rows import Asked, Row

CHILD: Final = FOLDER / "large_kit" / "limits_child.py"
CALIBRATION_BAR_BYTES: Final = 600_000_000
HOST_BAR_BYTES: Final = 2_000_000_000
CALIBRATED_ON: Final[Mapping[str, int]] = {"encoder-22m": 32, "unet": 256}
SIDE: Final = 16_400
"""Of the square layers: two of them have more than 2 GiB of float32 weights."""

TOOLS: Final = ("onnxruntime", "openvino")


def told(**order: Any) -> dict[str, Any]:
    """What a process of its own says that does ``order``. Raises ``RuntimeError`` with its last words when it fails."""
    places = {"PYTHONPATH": os.pathsep.join([str(FOLDER.parent), *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), json.dumps(order)], capture_output=True, check=False, env={**os.environ, **places}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{order['do']}: {done.stderr.decode(errors='replace')[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def calibration_memory(asked: Asked) -> Row:
    """Peak of the process that makes a static int8 build, beyond the network's weights: by edgedeploy, and by the tool as it
    is documented. The imports are in it, also those of torch that NNCF brings along."""
    texts, peaks = [], []
    for network, count in CALIBRATED_ON.items():
        with tempfile.TemporaryDirectory(prefix="edgedeploy-limits-") as folder:
            made = told(do="export", network=network, folder=folder)
            for target in TOOLS:
                given = {"folder": folder, "reference": made["reference"], "target": target, "cases": count}
                ours = told(do="build", name=f"ours-{target}", precision="int8", **given)
                theirs = told(do="by_tool", name=f"tool-{target}", calibrator="", **given)
                peaks.append(ours["peak_bytes"] - made["weights_bytes"])
                beside = _megabytes(theirs["peak_bytes"] - made["weights_bytes"])
                texts.append(f"{network} {target} {_megabytes(peaks[-1])} (tool {beside})")
    return Row(
        f"static int8, {' and '.join(f'{name} on {count} cases' for name, count in CALIBRATED_ON.items())}: "
        "peak of the process beyond the weights",
        "; ".join(texts),
        f"<= {_megabytes(CALIBRATION_BAR_BYTES)}",
        max(peaks) <= CALIBRATION_BAR_BYTES,
    )


def encoder_of_100m_parameters(asked: Asked) -> Row:
    """Each step in a process of its own, the largest peak beyond the weights; a file that is taken in has two processes."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-limits-") as folder:
        made = told(do="export", network="encoder-100m", folder=folder)
        given = {"folder": folder, "reference": made["reference"], "target": "onnxruntime", "cases": 4}
        steps = {"export": made, "take in": told(do="take_in", **given), "golden": told(do="golden", **given)}
        for precision in ("float32", "int8-dynamic"):
            steps[precision] = told(do="build", name=precision, precision=precision, **given)
        steps["take in, its process"] = {"peak_bytes": steps["take in"]["child_peak_bytes"]}
    beyond = {name: step["peak_bytes"] - made["weights_bytes"] for name, step in steps.items()}
    return Row(
        f"an encoder of {made['reference']['parameters'] / 1e6:.0f} M parameters on the host, peak beyond its weights",
        ", ".join(f"{name} {_megabytes(size_bytes)}" for name, size_bytes in beyond.items()),
        f"<= {_megabytes(HOST_BAR_BYTES)}",
        max(beyond.values()) <= HOST_BAR_BYTES,
    )


def model_past_2_gb(asked: Asked) -> Row:
    """Two square layers with 2.1 GB of weights: exported, built, sent to this host as a board, run there, compared."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-limits-") as folder:
        made = told(do="export", network=f"wide-{SIDE}", folder=folder, samples=1)
        given = {"folder": folder, "reference": made["reference"], "cases": 2}
        built = told(do="build", name="float32", precision="float32", target="onnxruntime", **given)
        ran = told(do="on_board", name="float32", artifact=built["artifact"], **given)
        files = ", ".join(f"{item['name']} {_megabytes(item['size_bytes'])}" for item in built["artifact"]["files"])
    found = f"{files}; relative L2 to the reference {ran['distance']:.1g}; peak beyond the weights: "
    peaks = {"export": made, "build": built, "on the board": {"peak_bytes": ran["board_peak_bytes"]}}
    found += ", ".join(
        f"{name} {_megabytes(step['peak_bytes'] - made['weights_bytes'])}" for name, step in peaks.items()
    )
    return Row(
        f"a model with {made['weights_bytes'] / 1e9:.2f} GB of float32 weights on a board",
        found,
        "it runs, within 1e-3 of its reference",
        made["weights_bytes"] > 2 << 30 and ran["distance"] <= 1e-3,
    )


ROWS = (calibration_memory, encoder_of_100m_parameters, model_past_2_gb)

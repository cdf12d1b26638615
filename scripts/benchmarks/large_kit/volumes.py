"""Volumes in tiles: a whole volume of 256 voxels a side beside the same one in tiles, each in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.shared.rows import Asked, Row

SIDE: Final = 256
SHARE: Final = 0.40
"""Of the whole volume's peak memory that tiles may take, beyond what a process with its runtime has before it runs."""

ROUNDS: Final = 3
"""Whole and tiles take turns so many times: memory and time are medians."""

CHILD: Final = """
import json, sys, time
import numpy as np
from pathlib import Path
from edgedeploy.runtime.agent.worker import peak_memory_bytes
from edgedeploy.runtime.sessions.open import open_session
folder, entry, plan, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
from edgedeploy.runtime.sessions.open import import_runtime
import_runtime(target)
before = peak_memory_bytes()
session = open_session(target, folder, entry, {"edgedeploy.tiles": plan} if plan else {}, 1)
volume = np.load(folder / "volume.npy")
started = time.process_time()
answer = session.run({"x": volume})["y"]
taken = time.process_time() - started
peak = peak_memory_bytes() - before
if sys.argv[5]:
    np.save(folder / sys.argv[5], answer)
print(json.dumps({"peak_bytes": peak, "cpu_s": taken}))
"""


def meshnet_volume(asked: Asked) -> Row:
    """MeshNet (Fedorov et al. 2017): seven dilated convolutions, five channels, ONNX Runtime."""
    return _row("MeshNet, 5 channels", _meshnet(), "onnxruntime", asked)


def unet_volume(asked: Asked) -> Row:
    """A U-Net as MONAI's BasicUNet, three levels from four channels, ONNX Runtime."""
    return _row("U-Net of three levels, 4 channels", _unet(), "onnxruntime", asked)


def meshnet_volume_openvino(asked: Asked) -> Row:
    """The same MeshNet by OpenVINO."""
    return _row("MeshNet, 5 channels, OpenVINO", _meshnet(), "openvino", asked)


def _row(what: str, network: Any, target: str, asked: Asked) -> Row:
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgedeploy-volume-") as place:
        folder = Path(place)
        model = _write_whole(folder, network, target, asked.seed)
        cap_bytes = round(SHARE * _child(folder, "whole", target, "")["peak_bytes"])
        plan, predicted = _write_tiled(folder, model, target, cap_bytes)
        runs: dict[str, list[dict[str, float]]] = {"whole": [], "tiled": []}
        for number in range(ROUNDS):
            for name in ("whole", "tiled") if number % 2 == 0 else ("tiled", "whole"):
                kept = f"{name}.npy" if number == 0 else ""
                runs[name].append(_child(folder, name, target, kept))
        whole, tiled = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("whole", "tiled"))
        most = max(float(np.abs(whole[:, c] - tiled[:, c]).max()) for c in range(whole.shape[1]))
    peaks = {name: [run["peak_bytes"] / 2**20 for run in each] for name, each in runs.items()}
    share = statistics.median(peaks["tiled"]) / statistics.median(peaks["whole"])
    ratios = [cut["cpu_s"] / one["cpu_s"] for one, cut in zip(runs["whole"], runs["tiled"], strict=True)]
    equal = most == 0
    found = (
        f"{share:.0%} of the peak ({_spread(peaks['tiled'])} of {_spread(peaks['whole'])} MiB beyond the runtime; predicted "
        f"{predicted / 2**20:.0f}), {'equal in every bit' if equal else f'largest difference {most:.2g}'}, "
        f"{statistics.median(ratios):.2f} x the CPU time ({min(ratios):.2f} to {max(ratios):.2f}), {plan}"
    )
    return Row(f"{SIDE}^3 in tiles: {what}", found, f"equal, at most {SHARE:.0%} of the peak", equal and share <= SHARE)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _write_whole(folder: Path, network: Any, target: str, seed: int) -> Any:
    """Writes the volume and the network at its size; the ONNX model."""
    import numpy as np
    import onnx

    from edgedeploy.records.artifact import TensorSpec
    from edgedeploy.reference.export import export_reference
    from edgedeploy.reference.receptive import fields_of
    from edgedeploy.reference.tiles import at_size

    small = TensorSpec("x", "float32", (1, 1, 64, 64, 64))
    export_reference(network, (small,), folder / "small.onnx")
    model = onnx.load(str(folder / "small.onnx"))
    model.graph.output[0].name, inside = "y", model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["y" if name == inside else name for name in node.output]
    model = at_size(model, fields_of(model), (SIDE,) * 3)
    _save(model, folder, "whole", target)
    np.save(folder / "volume.npy", np.random.default_rng(seed).standard_normal((1, 1, *(SIDE,) * 3), np.float32))
    return model


def _write_tiled(folder: Path, model: Any, target: str, cap_bytes: int) -> tuple[str, int]:
    """Writes the network at the size of the tile that is chosen for ``cap_bytes``; its plan in words, and the peak that is
    predicted."""
    from edgedeploy.reference.tiles import tiled_within

    cut = tiled_within(model, cap_bytes)
    _save(cut.model, folder, "tiled", target)
    (folder / "tiles.json").write_text(cut.plan.as_text(), encoding="utf-8")
    sides = "x".join(map(str, cut.plan.tile))
    return f"{cut.plan.count} tiles of {sides}, halo {cut.halo[0][0]}, {cut.plan.work:.2f} x the voxels", cut.peak_bytes


def _save(model: Any, folder: Path, name: str, target: str) -> None:
    import onnx

    onnx.save(model, str(folder / f"{name}.onnx"))
    if target == "openvino":
        import openvino

        converted = openvino.convert_model(str(folder / f"{name}.onnx"))
        openvino.save_model(converted, str(folder / f"{name}.xml"), compress_to_fp16=False)


def _child(folder: Path, name: str, target: str, kept: str) -> dict[str, float]:
    entry = f"{name}.{'xml' if target == 'openvino' else 'onnx'}"
    plan = "tiles.json" if name == "tiled" else ""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), entry, plan, target, kept],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _meshnet() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[Any] = []
    wide = 1
    for step in (1, 1, 1, 2, 4, 8, 1):
        layers += [nn.Conv3d(wide, 5, 3, padding=step, dilation=step), nn.BatchNorm3d(5), nn.ReLU()]
        wide = 5
    return _settled(nn.Sequential(*layers, nn.Conv3d(5, 2, 1)))


def _unet() -> Any:
    import torch
    from torch import nn

    def two(given: int, made: int) -> Any:
        parts = [(nn.Conv3d(a, made, 3, padding=1), nn.BatchNorm3d(made), nn.ReLU()) for a in (given, made)]
        return nn.Sequential(*(part for each in parts for part in each))

    class Net(nn.Module):
        def __init__(self, base: int) -> None:
            super().__init__()
            self.down = nn.ModuleList([two(1, base), two(base, 2 * base), two(2 * base, 4 * base)])
            self.up = nn.ModuleList(
                [nn.ConvTranspose3d(4 * base, 2 * base, 2, 2), nn.ConvTranspose3d(2 * base, base, 2, 2)]
            )
            self.join = nn.ModuleList([two(4 * base, 2 * base), two(2 * base, base)])
            self.pool, self.head = nn.MaxPool3d(2), nn.Conv3d(base, 2, 1)

        def forward(self, x: Any) -> Any:
            fine = self.down[0](x)
            middle = self.down[1](self.pool(fine))
            coarse = self.down[2](self.pool(middle))
            middle = self.join[0](torch.cat([middle, self.up[0](coarse)], 1))
            return self.head(self.join[1](torch.cat([fine, self.up[1](middle)], 1)))

    torch.manual_seed(0)
    return _settled(Net(4))


def _settled(network: Any) -> Any:
    """With statistics in its batch norms that are not those of a fresh one, so that folding them changes bits."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


ROWS = (meshnet_volume, unet_volume, meshnet_volume_openvino)

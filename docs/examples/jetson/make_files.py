"""Makes what a stranger would bring: ``model.onnx`` and folders of 8-bit images. Replace both by yours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

COUNTS = {"calibration": 8, "selection": 12, "confirmation": 12}


def make_model() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU()),
        *(torch.nn.Conv2d(8, 16, 3, stride=2, padding=1), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 4)),
    )
    torch.onnx.export(
        network.eval(), (torch.zeros(1, 3, 64, 64),), "model.onnx", dynamo=True, external_data=False, verbose=False
    )


def make_images() -> None:
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        folder = Path("inputs") / split
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 64)).save(folder / f"{number}.png")


make_model()
make_images()

"""Made-up frames of three scanners with a bright lesion each, and a network that finds it: the task of each site.

A site has its scanner's tone (how bright what lies around a lesion is), and so its own images; nothing of it is a patient's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from edgedeploy import Case, MetricInfo, Split, TensorSpec

SIDE = 32
CHANNELS = 8
CASES = {"calibration": 16, "selection": 24, "confirmation": 24}


class SiteTask:
    name = "lesions"
    architecture: Mapping[str, Sequence[Any]] = {}
    metrics: Mapping[str, MetricInfo] = {"dice": MetricInfo("maximize", "1", "Dice of the lesion")}

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, **arch: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return network()

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, SIDE, SIDE)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(path.stem, split) for path in sorted(self._folder.glob(f"{split}-*.image.png")))

    def group_of(self, case: Case) -> str:
        return case.id

    def inputs(self, case: Case, **arch: Any) -> dict[str, Any]:
        return {"image": self._load(case)[0][None, None]}

    def evaluate(self, outputs: Mapping[str, Any], case: Case) -> dict[str, float | None]:
        (scores,) = outputs.values()
        found, truth = np.asarray(scores).reshape(SIDE, SIDE) > 0, self._load(case)[1]
        return {"dice": float(2 * (found & truth).sum() / (found.sum() + truth.sum()))}

    def _load(self, case: Case) -> tuple[Any, Any]:
        """Values from 0 to 1, and the mask."""
        with Image.open(self._folder / f"{case.id}.png") as image:
            values = np.asarray(image, np.float32) / 255
        with Image.open(self._folder / f"{case.id.removesuffix('.image')}.mask.png") as mask:
            return values, np.asarray(mask) > 0


def write_images(folder: Path, tone: float, seed: int, cases: Mapping[str, int] = CASES) -> None:
    """A site's images and masks as 8-bit PNG files, ``cases`` of each split."""
    folder.mkdir(parents=True)
    for place, (split, count) in enumerate(cases.items()):
        for number in range(count):
            image, mask = frame(np.random.default_rng((seed, place, number)), tone)
            Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"{split}-{number:03d}.image.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{split}-{number:03d}.mask.png")


def frame(rng: np.random.Generator, tone: float) -> tuple[Any, Any]:
    """(SIDE, SIDE) float32 from 0 to 1, and the lesion's mask: an ellipse 0.2 brighter than what lies around it."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle, radii = rng.uniform(9, SIDE - 9, 2), rng.uniform(3, 6, 2)
    truth = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 <= 1
    image = tone + 0.2 * truth + rng.normal(0, 0.05, truth.shape)
    return np.clip(image, 0, 1).astype(np.float32), truth


def network() -> nn.Module:
    """Four 3 x 3 convolutions, dilated by 1, 2, 4 and 2, and a head."""
    layers: list[nn.Module] = []
    for before, step in ((1, 1), (CHANNELS, 2), (CHANNELS, 4), (CHANNELS, 2)):
        layers += [nn.Conv2d(before, CHANNELS, 3, padding=step, dilation=step), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS, 1, 1))


def trained(tones: Sequence[float], seed: int, steps: int = 400) -> nn.Module:
    """A network trained on frames of all tones, as rounds of training over the sites would leave one (simulated: here is no
    federation, the frames are made in one place)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 99))
    model = network()
    optimiser = torch.optim.Adam(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        made = [frame(rng, float(rng.choice(tones))) for _ in range(16)]
        images, truths = (
            torch.from_numpy(np.stack(part).astype(np.float32))[:, None] for part in zip(*made, strict=True)
        )
        scores = model(images)
        likely = torch.sigmoid(scores)
        overlap = 1 - 2 * (likely * truths).sum() / (likely.sum() + truths.sum())
        loss = nn.functional.binary_cross_entropy_with_logits(scores, truths) + overlap
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
    return model.eval()


def make_task(folder: str = "images") -> SiteTask:
    """The task of the site whose images lie in ``folder``, beside this file."""
    return SiteTask(Path(__file__).resolve().parent / folder)

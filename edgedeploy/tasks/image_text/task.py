"""Image and text in one space: contrastive learning of an image tower against a text encoder, and retrieval.

Images are synthetic ultrasound, and their descriptions are made up from the masks (:mod:`.descriptions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.interfaces.task import SPLITS, Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.batching import in_batches
from edgedeploy.tasks.image_text.descriptions import described
from edgedeploy.tasks.image_text.material import Material, text_folder
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

OUTPUTS: Final = ("image_embedding", "text_embedding")
TEMPERATURE: Final = 0.1
"""What cosines are divided by in the loss."""


@dataclass(frozen=True)
class ImageTextOptions:
    """Which description belongs to an image. Images are synthetic ultrasound, descriptions are made up from their masks.

    - ``text_encoder``: folder with the weights and the tokenizer of a BERT sentence encoder (config.json,
      model.safetensors, tokenizer.json), which is frozen; left out: a small random one, which is trained.
    - ``tokens``: length that texts are cut or padded to.
    - ``dim``: numbers of an embedding.
    - ``resolutions``: sides of the square that images are squeezed to, the baseline's first; multiples of 16.
    - ``image_size``: the size that images are drawn at, in pixels.
    - ``train_cases``, ``calibration_cases``, ``selection_cases``, ``confirmation_cases``: how many pairs the split has.
    - ``seed``: decides images, and first weights.
    - ``baseline``: how the towers are trained.
    - ``recovery``: how a changed variant is trained further.
    """

    text_encoder: str = ""
    tokens: int = 64
    dim: int = 64
    resolutions: tuple[int, ...] = (96, 64)
    image_size: int = 96
    train_cases: int = 512
    calibration_cases: int = 32
    selection_cases: int = 64
    confirmation_cases: int = 64
    seed: int = 0
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=40, batch_size=32, learning_rate=2e-3, weight_decay=1e-2)
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=6, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, warmup_epochs=0.5
        )
    )

    def __post_init__(self) -> None:
        least = {f"{split}_cases": 1 for split in SPLITS}
        at_least(self, **{**least, "train_cases": 4}, tokens=8, dim=4, image_size=32, seed=0)
        if any(side % 16 or side < 32 for side in self.resolutions):
            raise ValueError(f"resolutions must be multiples of 16 from 32 on, but got {list(self.resolutions)}")


class ImageText:
    """See :class:`edgedeploy.Task`, ``Trainable``, ``ScoresSplit`` and ``Grouped``."""

    def __init__(self, options: ImageTextOptions | None = None, base: Path | None = None) -> None:
        self.options = options = options or ImageTextOptions()
        self.name = "multi-modal"
        self.architecture: Mapping[str, Sequence[Scalar]] = {"resolution": options.resolutions}
        self.metrics = {
            "agreement": MetricInfo(
                "maximize", "1", "cosine of an image and its description", bound=1.0, yes_or_no=False
            )
        }
        self.split_metrics = {
            "recall_at_1": MetricInfo("maximize", "1", "images whose description is the nearest", bound=1.0),
            "recall_at_5": MetricInfo("maximize", "1", "images whose description is among the nearest 5", bound=1.0),
            "median_rank": MetricInfo("minimize", "1", "median rank of an image's description", bound=1.0),
        }
        self.baseline_recipe: TrainRecipe = options.baseline
        self.recovery_recipe: TrainRecipe = options.recovery
        self._material = Material(text_folder(options.text_encoder, base or Path()), options.tokens)
        shared = ("resolutions", "image_size", "seed", *(f"{split}_cases" for split in SPLITS))
        self._images = SyntheticUltrasound(UltrasoundOptions(**{name: getattr(options, name) for name in shared}))
        self.description = lru_cache(maxsize=4096)(self._description)

    def build(self, **arch: Scalar) -> Any:
        import torch

        from edgedeploy.tasks.image_text.encoder import TwoTowers

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            encoder, text_dim = self._material.encoder()
            return TwoTowers(1, encoder, text_dim, self.options.dim)

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        (image,) = self._images.input_specs(**arch)
        shape = (1, self.options.tokens)
        return image, TensorSpec("ids", "int64", shape), TensorSpec("mask", "int64", shape)

    def cases(self, split: Split) -> Sequence[Case]:
        return self._images.cases(split)

    def group_of(self, case: Case) -> str:
        return self._images.group_of(case)

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        ids, mask = self._material.encode(self.description(case))
        return {**self._images.inputs(case, **arch), "ids": ids, "mask": mask}

    def _description(self, case: Case) -> str:
        """What is said of the case's image."""
        return described(self._images.load(case)[1], self._images.classes)

    # -- scores

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        image, text = _pair(outputs)
        return {"agreement": float(image @ text)}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
        """Each image against the different descriptions of ``cases``, of which its own has a rank from 1 on: 1 and how many
        others are nearer, or as near."""
        texts = [self.description(case) for case in cases]
        first = {text: place for place, text in reversed(list(enumerate(texts)))}
        pairs = [_pair(found) for found in outputs]
        images = np.stack([image for image, _ in pairs])
        different = np.stack([pairs[place][1] for place in first.values()])
        near = images @ different.T
        own = np.array([list(first).index(text) for text in texts])
        own_near = near[np.arange(len(own)), own]
        ranks = (near >= own_near[:, None]).sum(axis=1)
        return {
            "recall_at_1": float(np.mean(ranks <= 1)),
            "recall_at_5": float(np.mean(ranks <= 5)),
            "median_rank": float(np.median(ranks)),
        }

    # -- training

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """Images as they are drawn: turned or mirrored ones need other words. The target is the number of each pair."""
        import torch

        for chosen in in_batches(self.cases("train"), batch_size, np.random.default_rng(seed)):
            feeds = [self.inputs(case, **arch) for case in chosen]
            inputs = {name: torch.from_numpy(np.concatenate([feed[name] for feed in feeds])) for name in feeds[0]}
            yield inputs, torch.arange(len(feeds))

    def loss(self, outputs: Any, target: Any) -> Any:
        """Cross-entropy of each image among the descriptions of its batch and the other way round (Radford et al., "Learning
        transferable visual models from natural language supervision", 2021). Equal descriptions have equal embeddings, which
        this loss does not push apart."""
        import torch.nn.functional as F  # noqa: N812

        near = outputs["image_embedding"] @ outputs["text_embedding"].T / TEMPERATURE
        return (F.cross_entropy(near, target) + F.cross_entropy(near.T, target)) / 2


def _pair(outputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """The two embeddings of one case at length 1. Raises ``MeasurementError`` for zeros and what is not finite."""
    found = []
    for name in OUTPUTS:
        vector = np.asarray(outputs[name], np.float64).reshape(-1)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise MeasurementError(f"a direction in {name}", f"its length is {length}", "Choose a wider precision")
        found.append(vector / length)
    return found[0], found[1]

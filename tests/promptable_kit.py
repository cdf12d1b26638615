"""The promptable task as small as it can be: networks of a few thousand weights on synthetic images of 48 pixels."""

from __future__ import annotations

from typing import Final

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.promptable.options import PromptableOptions

STEP: Final = TrainRecipe(epochs=1, batch_size=4, learning_rate=1e-3)
SMALL: Final = PromptableOptions(
    resolutions=(32,),
    networks=("vit-1", "cnn-4"),
    teacher="cnn-4",
    dim=32,
    heads=2,
    patch=8,
    decoder_dim=16,
    image_size=48,
    train_cases=6,
    calibration_cases=2,
    selection_cases=2,
    confirmation_cases=2,
    taught=STEP,
    baseline=STEP,
    recovery=STEP,
)

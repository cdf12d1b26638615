"""The contest's task: nerves and vessels in ultrasound by a U-Net of about 950,000 parameters.

A study file names it as a stranger's would: ``kind = "python"``, ``object = "task.py:make_task"``. It is the package's own
task over a folder of images, with the channels of each level chosen so that the network has the size that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.options import read_options
from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder
from edgedeploy.tasks.segmentation.unet import unet_of

CHANNELS: Final = (16, 32, 64, 96, 128)
"""Of each level, full resolution first: 948,243 parameters with transposed upsampling."""

DEFAULTS: Final = FolderOptions(
    selection_cases=40,
    calibration_cases=10,
    depth=len(CHANNELS) - 1,
    baseline=TrainRecipe(
        epochs=150,
        batch_size=4,
        learning_rate=1.5e-3,
        weight_decay=1e-2,
        warmup_epochs=3,
        bfloat16=True,
        early_epochs=90,
        early_arch={"resolution": 96},
    ),
)


class ContestTask(SegmentationFolder):
    """Selection is drawn from the training folder, confirmation is the published test folder."""

    def build(self, **arch: Scalar) -> Any:
        return unet_of(
            in_channels=self.channels,
            classes=len(self.classes) + 1,
            channels=CHANNELS,
            upsampling=str(arch["upsampling"]),
            seed=self.options.seed,
        )


def make_task(root: str, **options: Any) -> ContestTask:
    """``root`` is the folder with images/, masks/ and test/; further options are those of a folder of images."""
    chosen: Mapping[str, Any] = {"root": root, **options}
    return ContestTask(read_options(FolderOptions, DEFAULTS, chosen, "task.options"), Path.cwd())

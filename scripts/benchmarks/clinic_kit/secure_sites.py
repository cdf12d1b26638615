"""Three sites for the rows on calibration and recovery across them: real ultrasound by the size of its exports, or made up.

With EDGEDEPLOY_SHARED the images are those of usgra-seg, whose three export sizes are three sites by nature. Without it
they are synthetic, dealt to three sites of which the second is brighter and the third darker: a simulation. The network is
trained once and kept in EDGEDEPLOY_CACHE (else the user's cache folder).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.model import train_baseline
from edgedeploy.compress.oversight import Oversight
from edgedeploy.compress.shaped import built
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Case, TrainRecipe, baseline_arch
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.variant import digest_of
from edgedeploy.reference.export import Reference, describe, export_reference
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.common import saturates_here
from edgedeploy.tasks.segmentation.base import SegmentationTask
from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

REAL: Final = "data/usgra-seg/dataset"
MOST_CALIBRATION: Final = 16
"""Cases that a site calibrates with, at most."""
SITES: Final = ("A", "B", "C")

RECIPE: Final = TrainRecipe(
    epochs=60,
    batch_size=4,
    learning_rate=2e-3,
    weight_decay=1e-2,
    warmup_epochs=2,
    early_epochs=40,
    early_arch={"resolution": 96},
)


@dataclass(frozen=True, eq=False)
class Material:
    """The task, its trained network as an ONNX reference in ``folder``, and which cases are whose."""

    task: SegmentationTask
    data: str
    folder: Path

    @cached_property
    def arch(self) -> dict[str, Any]:
        return dict(baseline_arch(self.task))

    @cached_property
    def model(self) -> Any:
        """The float network, trained unless it is kept."""
        kept = self.folder / "weights.pt"
        if not kept.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            oversight = Oversight("the sites' network", checkpoint=self.folder / "half.checkpoint")
            save_weights(train_baseline(self.task, self.arch, oversight=oversight), kept)
            drop_checkpoint(self.folder / "half.checkpoint")
        return load_weights(built(self.task, self.arch), kept)

    @cached_property
    def reference(self) -> Reference:
        path = self.folder / "reference.onnx"
        if path.is_file():
            return describe(path)
        return export_reference(self.model, self.task.input_specs(**self.arch), path)

    def site_of(self, case: Case) -> str:
        height, width = self.task.frame(case).shape[:2]
        if self.data == "real":
            return {(512, 512): "A", (512, 534): "B"}.get((height, width), "C")
        return SITES[int(case.id.rsplit("-", 1)[-1].rsplit("/", 1)[-1]) % 3]

    @cached_property
    def calibration(self) -> Mapping[str, Sequence[Case]]:
        """The cases that each site calibrates with: training images too, because the smallest site has few others."""
        return self._dealt(("calibration", "train"), MOST_CALIBRATION)

    @cached_property
    def judged(self) -> Mapping[str, Sequence[Case]]:
        """Images of each site that no training and no calibration has seen."""
        return self._dealt(("selection", "confirmation"), 10_000)

    def _dealt(self, splits: Sequence[Any], most: int) -> dict[str, list[Case]]:
        found: dict[str, list[Case]] = {site: [] for site in SITES}
        for case in (case for split in splits for case in self.task.cases(split)):
            if len(found[site := self.site_of(case)]) < most:
                found[site].append(case)
        return found

    def feed(self, case: Case) -> dict[str, Any]:
        """A site's own scanner: synthetic images of the second site are brighter, of the third darker."""
        feed = dict(self.task.inputs(case, **self.arch))
        if self.data == "synthetic":
            feed["image"] = (feed["image"] * {"A": 1.0, "B": 1.6, "C": 0.5}[self.site_of(case)]).astype(np.float32)
        return feed

    def request(self, cases: Sequence[Case]) -> BuildRequest:
        """int8 with weights that this processor's kernels add without saturating."""
        bits, reference = 7 if saturates_here() else 8, self.reference
        return BuildRequest(
            reference.path,
            reference.inputs,
            reference.outputs,
            "int8",
            lambda: (self.feed(case) for case in cases),
            weight_bits=bits,
        )

    def dice(self, artifact: Artifact | None, folder: Path) -> dict[Case, float]:
        """Mean Dice over the structures of each judged case that has any, of the artifact in
        ``folder``; of the float reference for None."""
        entry, settings = ("reference.onnx", {}) if artifact is None else (artifact.entry, dict(artifact.settings))
        session = open_session("onnxruntime", folder, entry, settings, 1)
        found = {}
        for case in (case for cases in self.judged.values() for case in cases):
            value = self.task.evaluate(session.run(self.feed(case)), case)["dice_mean"]
            if value is not None:
                found[case] = value
        return found


@lru_cache(maxsize=1)
def material(seed: int) -> Material:
    """The task of the rows, on real images where they are."""
    shared = os.environ.get("EDGEDEPLOY_SHARED")
    common: dict[str, Any] = {
        "resolutions": (128, 96),
        "base_channels": 8,
        "depth": 4,
        "seed": seed,
        "baseline": RECIPE,
    }
    if shared and (Path(shared) / REAL).is_dir():
        options = FolderOptions(calibration_cases=30, selection_cases=40, **common)
        task: SegmentationTask = SegmentationFolder(_at(options, str(Path(shared) / REAL)), Path("/"))
        return Material(task, "real", _folder("real", options))
    made = UltrasoundOptions(**common)
    return Material(SyntheticUltrasound(made), "synthetic", _folder("synthetic", made))


def _at(options: FolderOptions, root: str) -> FolderOptions:
    from dataclasses import replace

    return replace(options, root=root)


def _folder(data: str, options: Any) -> Path:
    cache = os.environ.get("EDGEDEPLOY_CACHE") or Path.home() / ".cache" / "edgedeploy"
    return Path(cache) / f"sites-{data}-{digest_of(asdict(options))[:12]}"

"""The table [task] of a study file: the model, its data and its metrics."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from edgedeploy.spec.scenarios import Table as _Table


class TaskTable(_Table):
    """The model, its data and its metrics."""

    kind: Literal[
        "classification",
        "segmentation-folder",
        "image-to-image",
        "low-dose-ct",
        "detection",
        "volumes",
        "promptable",
        "multi-modal",
        "synthetic-ultrasound",
        "onnx",
        "python",
    ]
    """What describes the task: a kind that ships, a bare ONNX file, or Python of your own."""
    object: str | None = None
    """With kind = "python": the factory, as "file.py:factory" (relative to the study file) or "package.module:factory"."""
    model: str | None = None
    """With kind = "onnx": the .onnx file, relative to the study file."""
    checkpoint: str | None = Field(default=None, min_length=1)
    """A file with the baseline's trained weights, relative to the study file."""
    checkpoint_key: str | None = Field(default=None, min_length=1)
    """Where in the file they are; it can be left out where the weights of one key alone fit the model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the kind, in [task.options]; for kind = "python" the keywords of the factory."""

    @model_validator(mode="after")
    def _model_goes_with_kind(self) -> TaskTable:
        if (self.kind == "python") != (self.object is not None):
            raise ValueError(
                '`object` ("module:factory" or "file.py:factory") goes with kind = "python", and only with it'
            )
        if (self.kind == "onnx") != (self.model is not None):
            raise ValueError('`model` (an .onnx file) goes with kind = "onnx", and only with it')
        if self.kind == "onnx" and self.checkpoint is not None:
            raise ValueError("`checkpoint` goes with a model that is built in torch: an .onnx file has its weights")
        if self.checkpoint_key is not None and self.checkpoint is None:
            raise ValueError("`checkpoint_key` goes with `checkpoint`, the file that has the key")
        return self

"""Models that take no zeros and no negative numbers: each is exported, built and run on its user's own cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import torch
from small_task import bench
from torch import nn

from edgedeploy.compress.shaped import example_inputs
from edgedeploy.interfaces.task import Array, Case, Split
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.export import export_reference
from edgedeploy.runtime.sessions.onnxruntime import open_model
from edgedeploy.study.store import Store


class Logarithm(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.log(x - 5).mean(dim=-1, keepdim=True) * torch.ones(1, 4)


class Root(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.sqrt(x[:, 1:] - x[:, :-1])


class Masked(nn.Module):
    """Attention over what the mask leaves; a mask of zeros leaves nothing, and its softmax is NaN."""

    def forward(self, x: Any, mask: Any) -> Any:
        return torch.softmax(x.masked_fill(~mask, float("-inf")), dim=-1)


class Lengths(nn.Module):
    def forward(self, x: Any, lengths: Any) -> Any:
        inside = torch.arange(x.shape[1])[None] < lengths[:, None]
        return (x * inside).sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True)


class Words(nn.Module):
    """Words count from 2 on: 0 and 1 are no words."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)

    def forward(self, words: Any) -> Any:
        return self.table(words - 2).mean(dim=1)


FLOATS = TensorSpec("x", "float32", (1, 8))
RISING = np.arange(8, dtype=np.float32)[None] + 6
HONEST: list[tuple[Callable[[], nn.Module], dict[str, Any]]] = [
    (Logarithm, {"x": RISING}),
    (Root, {"x": RISING}),
    (Masked, {"x": RISING, "mask": np.arange(8)[None] > 5}),
    (Lengths, {"x": RISING, "lengths": np.array([5])}),
    (Words, {"words": np.array([[2, 7, 3]])}),
]


class HonestTask:
    name = "honest"
    architecture: Mapping[str, Sequence[Scalar]] = {"resolution": (128,)}
    metrics: Mapping[str, MetricInfo] = made_up.TASK_METRICS

    def __init__(self, feed: dict[str, Any]) -> None:
        self._feed = feed

    def build(self, **arch: Scalar) -> Any:
        raise AssertionError("the test gives the model")

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, value.dtype.name, value.shape) for name, value in self._feed.items())

    def cases(self, split: Split) -> Sequence[Case]:
        return (Case(f"{split}-0", split),)

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return dict(self._feed)

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"dice_mean": 1.0, "hd95_px": None}


@pytest.mark.parametrize(("make", "feed"), HONEST, ids=lambda value: getattr(value, "__name__", ""))
def test_an_honest_model_is_built_from_its_users_cases(
    make: Callable[[], nn.Module], feed: dict[str, Any], tmp_path: Path
) -> None:
    task, model = HonestTask(feed), make().eval()
    workbench = bench(Store(tmp_path / "study"), task)
    workbench.models.__dict__["baseline_model"] = model
    artifact, folder = workbench.artifact(made_up.variant())
    session = open_model(folder / artifact.entry, {}, 1)
    with torch.inference_mode():
        wanted = model(*(torch.from_numpy(value) for value in feed.values())).numpy()
    assert session.run(feed)["out0"] == pytest.approx(wanted, rel=1e-5)
    session.executed()  # looks at one inference more
    examples = example_inputs(task.input_specs(), feed)
    assert all(np.array_equal(examples[name], value) for name, value in feed.items())


class Guessed(nn.Module):
    """A bit of each: what is made up where there are no cases has to suit it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 8)

    def forward(self, x: Any, mask: Any, lengths: Any, words: Any) -> Any:
        seen = torch.softmax(torch.log(x).masked_fill(mask, float("-inf")), dim=-1)
        inside = torch.arange(8)[None] < lengths[:, None]
        return torch.sqrt(x) / inside.sum(dim=1, keepdim=True) + seen + self.table(words)


def test_what_is_made_up_suits_logarithms_masks_lengths_and_indices(tmp_path: Path) -> None:
    specs = (
        FLOATS,
        TensorSpec("mask", "bool", (1, 8)),
        TensorSpec("lengths", "int64", (1,)),
        TensorSpec("words", "int64", (1,)),
    )
    reference = export_reference(Guessed(), specs, tmp_path / "guessed.onnx")
    assert [spec.dtype for spec in reference.inputs] == ["float32", "bool", "int64", "int64"]

"""Row: how many users a server can have within a deadline, predicted from service times and measured.

Three networks at sizes of a small machine, one instance with one thread each, through the product's own agent on this
machine. The measured answer is the server scenario's; the prediction is a simulation of the same queue with the service
times that the board measured apart from it, between the loads. The networks take turns, so that what else runs here
disturbs all of them; medians over the rounds count.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from benchmarks.shared.networks import mobilenet
from benchmarks.shared.rows import Asked, Row
from edgedeploy.boards.open import open_board
from edgedeploy.evidence.serving import predicted_users
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.job import Job, MeasurePlan, Payload, ScenarioPlan
from edgedeploy.reference.export import Reference, export_reference
from edgedeploy.spec.scenarios import ServerTable
from edgedeploy.tasks.segmentation.unet import build_unet

ROUNDS: Final = 3
CLOSE: Final = 0.10
"""How far the median of predicted over measured may be from 1."""

DEADLINE_MS: Final = 100
QUERIES: Final = 1000
SAMPLES: Final = 400


@dataclass(frozen=True)
class Served:
    """A network as ONNX file, with inputs to run it on."""

    name: str
    payload: Payload


@dataclass(frozen=True)
class Answer:
    """One round: users predicted and measured, and the median service time in ns."""

    predicted: int
    measured: int
    service_ns: float


def users_within_deadline(asked: Asked) -> Row:
    """Predicted and measured users of three networks."""
    plan = _plan(asked.seed)
    with TemporaryDirectory(prefix="edgedeploy-users-") as name:
        folder = Path(name)
        networks = [_served(*item, folder, asked.seed) for item in _networks(asked.seed)]
        found: dict[str, list[Answer]] = {item.name: [] for item in networks}
        for number in range(ROUNDS):
            for item in networks:
                found[item.name].append(_answer(item, plan, folder))
                sys.stderr.write(f"  round {number + 1}, {item.name}: {_round_text(found[item.name][-1])}\n")
    texts = [_text(name, answers) for name, answers in found.items()]
    holds = all(abs(statistics.median(_ratios(answers)) - 1) <= CLOSE for answers in found.values())
    what = (
        f"users at one instance with one thread whose requests (one a user in 10 s, Poisson) are answered within "
        f"{DEADLINE_MS} ms, p99 by LoadGen's rule over {QUERIES} requests: predicted over measured, {ROUNDS} rounds"
    )
    return Row(what, "; ".join(texts), f"median within {CLOSE:.0%} of 1 on each", holds)


def _plan(seed: int) -> MeasurePlan:
    table = ServerTable.model_validate(
        {"deadline": f"{DEADLINE_MS} ms", "queries": QUERIES, "seed": seed, "samples": SAMPLES, "time_limit": "10 min"}
    )
    scenario: ScenarioPlan = table.plan(Path())
    return MeasurePlan(
        queries=8, warmup=5, cold_starts=0, collect_outputs=False, time_limit_s=1500.0, scenarios=(scenario,)
    )


def _networks(seed: int) -> Sequence[tuple[str, Any, tuple[int, ...]]]:
    unet = build_unet(in_channels=1, classes=3, base=8, depth=3, upsampling="resize", seed=seed).eval()
    return (
        ("MobileNetV2-like 96 px", mobilenet(), (1, 3, 96, 96)),
        ("UNet (8 channels) 64 px", unet, (1, 1, 64, 64)),
        ("small ViT 128 px", _small_vit(seed), (1, 3, 128, 128)),
    )


def _small_vit(seed: int) -> Any:
    """Patches of 16, six blocks, 192 wide, 3 heads (Dosovitskiy et al. 2021)."""
    import torch
    from torch import nn

    class SmallViT(nn.Module):
        def __init__(self, width: int = 192) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
            block = nn.TransformerEncoderLayer(width, 3, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
            self.head = nn.Linear(width, 1000)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(image).flatten(2).transpose(1, 2) + self.places
            answer: torch.Tensor = self.head(self.blocks(tokens).mean(1))
            return answer

    torch.manual_seed(seed)
    return SmallViT().eval()


def _served(name: str, module: Any, shape: tuple[int, ...], folder: Path, seed: int) -> Served:
    place = folder / "".join(char for char in name if char.isalnum())
    specs = (TensorSpec("image", "float32", shape),)
    reference: Reference = export_reference(module, specs, place / "artifact" / "model.onnx")
    artifact = Artifact.of_folder(
        place / "artifact",
        target="onnxruntime",
        precision="float32",
        entry="model.onnx",
        inputs=reference.inputs,
        outputs=reference.outputs,
        settings={},
        reference_sha256=reference.sha256,
        built_with={},
    )
    cases = np.random.default_rng(seed).random((8, *shape), dtype=np.float32)
    np.savez(place / "inputs.npz", image=cases)
    return Served(name, Payload(artifact, place / "artifact", place / "inputs.npz", threads=1))


def _answer(item: Served, plan: MeasurePlan, folder: Path) -> Answer:
    board = open_board({"name": "this machine", "kind": "local", "root": str(folder / "board")})
    with TemporaryDirectory(dir=folder) as scratch, board.session() as session:
        raw: Mapping[str, Any] = session.measure(Job(item.payload, None, plan), Path(scratch)).scenarios["server"]
    times_ns = [time_ns for cell in (*raw["services"], *raw["rested"]) for time_ns in cell["ns"]]
    return Answer(predicted_users(raw).users, raw["users"], statistics.median(times_ns))


def _ratios(answers: Sequence[Answer]) -> list[float]:
    return [answer.predicted / answer.measured if answer.measured else float("inf") for answer in answers]


def _round_text(answer: Answer) -> str:
    load = os.getloadavg()[0]
    return (
        f"{answer.predicted} predicted, {answer.measured} measured, {answer.service_ns / 1e6:.2f} ms, load {load:.1f}"
    )


def _text(name: str, answers: Sequence[Answer]) -> str:
    ratios = _ratios(answers)
    measured = statistics.median(answer.measured for answer in answers)
    predicted = statistics.median(answer.predicted for answer in answers)
    service_ms = statistics.median(answer.service_ns for answer in answers) / 1e6
    return (
        f"{name} ({service_ms:.1f} ms): {predicted:g} predicted, {measured:g} measured, "
        f"{statistics.median(ratios):.2f} [{min(ratios):.2f} to {max(ratios):.2f}]"
    )


ROWS = (users_within_deadline,)

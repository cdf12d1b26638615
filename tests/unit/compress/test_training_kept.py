"""A training that is cut off, by a kill or by the clock, goes on where it was and ends as an undisturbed one."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgedeploy.compress import checkpoint as checkpoint_module
from edgedeploy.compress.checkpoint import DIGEST_BYTES, drop_checkpoint
from edgedeploy.compress.oversight import Oversight, TrainProgress, TrainReport
from edgedeploy.compress.qat import graph as quantgraph
from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.compress.training import fit
from edgedeploy.errors import OutOfTime
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.artifact import TensorSpec

RECIPE = TrainRecipe(epochs=5, batch_size=8, learning_rate=0.02)
STEPS = 4
"""Of an epoch."""


class Threshold:
    """Two classes of pixels: brighter than 0 or not. Counts the batches that were trained on."""

    baseline_recipe = recovery_recipe = RECIPE

    def __init__(self) -> None:
        self.trained = 0

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(STEPS):
            images = torch.randn(batch_size, 1, 8, 8, generator=generator)
            yield images, (images[:, 0] > 0).long()

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.trained += 1
        return nn.functional.cross_entropy(outputs, target)


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: results are equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(channels: int = 8, seed: int = 0) -> nn.Module:
    """With batch statistics and with dropout, which draws from torch's own random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2)),
            nn.Conv2d(channels, 2, 1),
        )


def killed_in_epoch(number: int) -> Callable[[TrainProgress], None]:
    def hear(state: TrainProgress) -> None:
        if state.epoch == number:
            raise Killed

    return hear


def over_after(steps: int) -> Callable[[], bool]:
    asked = iter(range(10_000))
    return lambda: next(asked) >= steps


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture
def undisturbed() -> nn.Module:
    model = network()
    fit(model, Threshold(), RECIPE, arch={"side": 8}, teacher=network(seed=3))
    return model


def train(checkpoint: Path, recipe: TrainRecipe = RECIPE, **oversight: Any) -> tuple[nn.Module, Threshold, TrainReport]:
    model, task = network(), Threshold()
    found = Oversight(checkpoint=checkpoint, **oversight)
    report = fit(model, task, recipe, arch={"side": 8}, teacher=network(seed=3), oversight=found)
    return model, task, report


@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_a_killed_training_goes_on_with_the_last_whole_epoch(
    epoch: int, undisturbed: nn.Module, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "training" / "a.pt"
    with pytest.raises(Killed):
        train(checkpoint, progress=killed_in_epoch(epoch))
    torch.rand(7)  # what the next process has drawn by then is another thing
    model, task, report = train(checkpoint, note=pytest.fail)
    assert task.trained == (5 - epoch) * STEPS
    assert equal(model, undisturbed)
    assert (report.epochs, report.steps) == (5, 5 * STEPS)


@pytest.mark.parametrize("steps", [1, STEPS, 2 * STEPS + 3])
def test_the_end_of_the_time_loses_no_step(steps: int, undisturbed: nn.Module, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.pt"
    with pytest.raises(OutOfTime, match=rf"after {steps // STEPS} of 5 epochs.*continues it"):
        train(checkpoint, out_of_time=over_after(steps))
    model, task, report = train(checkpoint)
    assert task.trained == 5 * STEPS - steps
    assert equal(model, undisturbed)
    assert report.steps == 5 * STEPS


def test_time_and_loss_are_those_of_all_runs(tmp_path: Path) -> None:
    first, second = list[TrainProgress](), list[TrainProgress]()
    with pytest.raises(OutOfTime):
        train(tmp_path / "a.pt", out_of_time=over_after(3 * STEPS), progress=first.append)
    _, _, report = train(tmp_path / "a.pt", progress=second.append)
    assert report.wall_s > first[-1].spent_s + second[-1].spent_s - 1e-6
    assert [state.epoch for state in (*first, *second)] == [1, 2, 3, 4, 5]
    assert report.final_loss == second[-1].loss


def test_a_training_whose_time_is_over_before_it_begins_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime, match=r"after 0 of 5 epochs.*starts it from the beginning"):
        train(tmp_path / "a.pt", out_of_time=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_is_told_from_the_first_epoch_on(tmp_path: Path) -> None:
    states = list[TrainProgress]()
    train(tmp_path / "a.pt", progress=states.append)
    left = [state.left_s for state in states]
    assert all(one is not None for one in left)
    assert left[-1] == 0.0
    assert left[0] is not None and 0 < left[0] <= 4 * states[0].spent_s, "at the pace of the first epoch"


def with_arch(checkpoint: Path, note: Callable[[str], None]) -> int:
    task = Threshold()
    fit(
        network(),
        task,
        RECIPE,
        arch={"side": 4},
        teacher=network(seed=3),
        oversight=Oversight("", checkpoint=checkpoint, note=note),
    )
    return task.trained


def with_teacher(checkpoint: Path, note: Callable[[str], None]) -> int:
    task, recipe = Threshold(), replace(RECIPE, distill_weight=0.5)
    for seed in (3, 4):
        task = Threshold()
        fit(
            network(),
            task,
            recipe,
            arch={},
            teacher=network(seed=seed),
            oversight=Oversight("", checkpoint=checkpoint, note=note),
        )
    return task.trained


def with_channels(checkpoint: Path, note: Callable[[str], None]) -> int:
    task = Threshold()
    fit(network(channels=6), task, RECIPE, arch={"side": 8}, oversight=Oversight("", checkpoint=checkpoint, note=note))
    return task.trained


def with_recipe(checkpoint: Path, note: Callable[[str], None]) -> int:
    return train(checkpoint, replace(RECIPE, learning_rate=0.01), note=note)[1].trained


@pytest.mark.parametrize("again", [with_arch, with_teacher, with_channels, with_recipe])
def test_a_checkpoint_of_another_training_is_set_aside(
    again: Callable[[Path, Callable[[str], None]], int], tmp_path: Path
) -> None:
    notes, checkpoint = list[str](), tmp_path / "a.pt"
    train(checkpoint)
    assert again(checkpoint, notes.append) == 5 * STEPS
    assert "it belongs to another recipe, architecture, precision or teacher" in notes[-1]
    assert "moved to a.pt.aside; the training starts from the beginning" in notes[-1]
    assert (tmp_path / "a.pt.aside").is_file()


def test_a_checkpoint_of_another_precision_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without native bfloat16 trains in float32, and says so."""
    notes, recipe = list[str](), replace(RECIPE, bfloat16=True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    _, _, report = train(tmp_path / "a.pt", recipe)
    assert report.precision == "float32"
    _, task, _ = train(tmp_path / "a.pt", replace(recipe, bfloat16=False), note=notes.append)
    assert task.trained == 5 * STEPS, "the recipe is another one"
    assert len(notes) == 1


class Trap:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the checkpoint ran code",)


def signed(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        flipped,
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: signed({"schema": 1, "model": Trap()}),
        lambda content: signed([1, 2]),
        lambda content: signed({"schema": 1}),
    ],
    ids=["a flipped bit", "half a file", "empty", "code", "a list", "no state"],
)
def test_a_damaged_checkpoint_is_never_believed(
    spoil: Callable[[bytes], bytes], undisturbed: nn.Module, tmp_path: Path
) -> None:
    notes, checkpoint = list[str](), tmp_path / "a.pt"
    train(checkpoint)
    assert len(checkpoint.read_bytes()) > DIGEST_BYTES
    checkpoint.write_bytes(spoil(checkpoint.read_bytes()))
    model, task, _ = train(checkpoint, note=notes.append)
    assert task.trained == 5 * STEPS
    assert equal(model, undisturbed)
    assert len(notes) == 1 and "a.pt is not used" in notes[0]


def test_a_disk_that_is_full_does_not_end_the_training(
    undisturbed: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_atomic", full)
    notes = list[str]()
    model, _, _ = train(tmp_path / "a.pt", note=notes.append)
    assert equal(model, undisturbed)
    assert len(notes) == 1 and "could be saved" in notes[0] and "No space left" in notes[0]


def test_a_damaged_checkpoint_that_cannot_be_set_aside_is_said(undisturbed: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    (tmp_path / "a.pt.aside").mkdir()
    notes = list[str]()
    model, _, _ = train(tmp_path / "a.pt", note=notes.append)
    assert equal(model, undisturbed)
    assert "could not be moved" in notes[0]


def test_what_a_finished_training_leaves_is_dropped_as_far_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    drop_checkpoint(tmp_path / "a.pt")
    drop_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
    (tmp_path / "b.pt").mkdir()
    drop_checkpoint(tmp_path / "b.pt")


def test_a_checkpoint_that_cannot_be_read_is_said(undisturbed: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()
    notes = list[str]()
    model, _, _ = train(tmp_path / "a.pt", note=notes.append)
    assert equal(model, undisturbed)
    assert "a.pt cannot be read" in notes[0]


def test_weights_are_in_the_usual_layout_afterwards() -> None:
    model = network()
    fit(model, Threshold(), RECIPE, arch={})
    tensors = [*model.parameters(), *model.buffers()]
    assert [tensor.stride() for tensor in tensors] == [torch.empty(tensor.shape).stride() for tensor in tensors]
    assert all(parameter.grad is None for parameter in model.parameters())


SPECS = (TensorSpec("image", "float32", (1, 1, 8, 8)),)


def train_int8(checkpoint: Path | None, **oversight: Any) -> tuple[nn.Module, Threshold]:
    task, teacher = Threshold(), network(seed=3).eval()
    found = Oversight(checkpoint=checkpoint, **oversight)
    recipe = replace(RECIPE, distill_weight=0.5)
    return train_quantized(teacher, task, SPECS, arch={}, teacher=teacher, recipe=recipe, oversight=found), task


def test_a_training_with_quantizers_goes_on_too(tmp_path: Path) -> None:
    undisturbed, _ = train_int8(None)
    with pytest.raises(Killed):
        train_int8(tmp_path / "a.pt", progress=killed_in_epoch(2))
    model, task = train_int8(tmp_path / "a.pt", note=pytest.fail)
    assert task.trained == 3 * STEPS
    assert equal(model, undisturbed)
    assert set(quantgraph.scales(model)) == set(quantgraph.scales(undisturbed))


def test_whether_a_quantizer_observes_is_read_back() -> None:
    def student() -> Any:
        graph = quantgraph.trace(network().eval(), [torch.zeros(2, 1, 8, 8)])
        return quantgraph.place_quantizers(
            quantgraph.fold_batch_norms(graph), "learned", percentile=100.0, momentum=0.1
        )

    kept, fresh, images = student(), student(), torch.randn(4, 1, 8, 8)
    kept(images)
    for quantizer in quantgraph.quantizers(kept):
        quantizer.stop_observing()
    buffer = io.BytesIO()
    torch.save(kept.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert not any(quantizer.observing for quantizer in quantgraph.quantizers(fresh))
    assert torch.equal(fresh(images), kept(images))

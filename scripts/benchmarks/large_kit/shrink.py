"""A trained transformer made smaller: factors fitted to what layers read beside plain SVD, and what each choice gains.

The network is a vision transformer that is trained here to say in which quadrant the brighter of two blobs is, by the same
task that tests use; its accuracy is of images that nothing was trained or chosen on.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from benchmarks import ROOT
from benchmarks.shared.rows import Asked, Row

sys.path.append(str(ROOT / "tests"))  # small_transformers

SEEDS: Final = 3
RANKS: Final = (0.125, 0.25, 0.375)
DEPTH: Final = 4
CHOICES: Final = (
    {"heads": 0.5},
    {"mlp": 0.5},
    {"depth": 0.5},
    {"rank": 0.25},
    {"tokens": 0.5},
    {"heads": 0.5, "mlp": 0.5, "depth": 0.75, "tokens": 0.6},
)
STUDENTS: Final = ({"student": "narrow"}, {"student": "cnn"})
LARGER: Final = {"dim": 192, "depth": 12, "heads": 4, "patch": 4}
PAIRS: Final = 9
QUERIES: Final = 4
"""Of one block; candidate and float network take turns in blocks."""

Run = Callable[[Mapping[str, Any]], Any]
"""Answers one feed."""


def low_rank_by_what_is_read(asked: Asked) -> Row:
    """Every linear layer at the same rank: error of the outputs on images that no factor was fitted to."""
    found = []
    for share in RANKS:
        errors = [_rank_errors(asked.seed + seed, share) for seed in range(SEEDS)]
        fitted, plain = ([one[place] for one in errors] for place in (0, 1))
        found.append(
            f"rank {share:g}: {_spread(fitted)} fitted, {_spread(plain)} by plain SVD "
            f"(x{mean(fitted) / mean(plain):.2f}, {sum(a < b for a, b in errors)} of {SEEDS} seeds lower)"
        )
    return Row(
        f"low rank, {DEPTH} blocks of 64 features: relative error of the logits on held-out images, {SEEDS} seeds",
        "; ".join(found),
    )


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _rank_errors(seed: int, share: float) -> tuple[float, float]:
    """Relative error of the logits with fitted factors, and with those of plain SVD."""
    import torch

    from edgedeploy.compress.shrink.apply import shrunk
    from edgedeploy.compress.shrink.rank import LowRankLinear, low_rank
    from edgedeploy.records.shrink import Shrink

    task, model = trained(seed)
    one = {"image": _images(task, "calibration")[:1]}

    def feeds() -> Iterator[dict[str, Any]]:
        return ({"image": image[None]} for image in _images(task, "calibration"))

    fitted = shrunk(model, Shrink(rank=share), one, feeds)
    plain = shrunk(model, Shrink(rank=share), one, feeds)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, LowRankLinear):
            plain.set_submodule(name, low_rank(model.get_submodule(name), share, None))
    held_out = _images(task, "selection")
    with torch.no_grad():
        wanted = model(held_out)
        errors = [float((made(held_out) - wanted).norm() / wanted.norm()) for made in (fitted, plain)]
    return errors[0], errors[1]


def answers_of_each_choice(asked: Asked) -> Row:
    """Weights, and right answers before and after the task's recovery, of the trained network."""
    from edgedeploy.compress.model import Further, derive

    task, model = trained(asked.seed)
    found = [f"whole: {_right(task, model):.3f} right, {_weights(model) / 1e3:.0f} k weights"]
    for choice in (*CHOICES, *STUDENTS):
        variant = variant_of(choice)
        before = derive(task, variant, model, further=Further(0))
        after = derive(task, variant, model)
        epochs = (task.baseline_recipe if variant.shrink.student else task.recovery_recipe).epochs
        found.append(
            f"{variant.shrink.label}: weights x{_weights(after) / _weights(model):.2f}, right {_right(task, before):.3f} "
            f"untrained, {_right(task, after):.3f} after {epochs} epochs"
        )
    what = (
        f"{DEPTH} blocks of 64 features, 17 tokens: share of right answers on {len(task.drawn['selection'][1])} images"
    )
    return Row(what, "; ".join(found))


def time_of_each_choice(asked: Asked) -> Row:
    """CPU time of ONNX Runtime against that of the float network. Times do not depend on the values of weights: nothing is
    trained."""
    from small_transformers import images, vit

    from edgedeploy.compress.shrink.apply import shrunk

    model = vit("joint", asked.seed, **LARGER)
    given = images(4, asked.seed)[0]
    whole = _session(model, given[:1])
    found = [f"whole: {_weights(model) / 1e6:.1f} M weights"]
    for choice in CHOICES:
        shrink = variant_of(choice).shrink
        smaller = shrunk(model, shrink, {"image": given[:1]}, lambda: ({"image": image[None]} for image in given))
        ratios = _ratios(whole, _session(smaller, given[:1]), given[:1])
        share = _weights(smaller) / _weights(model)
        found.append(f"{shrink.label}: CPU time x{_spread(ratios)}, weights x{share:.2f}")
    what = (
        f"{LARGER['depth']} blocks of {LARGER['dim']} features, 257 tokens, ONNX Runtime float32, 1 thread: "
        f"median (range) of {PAIRS} pairs of {QUERIES} queries"
    )
    return Row(what, "; ".join(found))


def variant_of(choice: Mapping[str, Any]) -> Any:
    from edgedeploy.records.canonical import canonical

    return canonical(
        {"target": "onnxruntime", **choice},
        arch_defaults={"kind": "joint"},
        target_precisions={"onnxruntime": ("float32",)},
        default_threads=1,
    )


@cache
def trained(seed: int) -> tuple[Any, Any]:
    """The task and its trained network, whose first weights hang on ``seed``."""
    import torch
    from small_transformers import BlobTask, vit

    from edgedeploy.compress.training import fit

    task = BlobTask(DEPTH, seed=seed)
    model = vit("joint", seed, depth=DEPTH)
    torch.set_num_threads(1)
    fit(model, task, task.baseline_recipe, arch={"kind": "joint"})
    return task, model


def _images(task: Any, split: str) -> Any:
    return task.drawn[split][0]


def _right(task: Any, model: Any) -> float:
    import torch

    given, labels = task.drawn["selection"]
    with torch.no_grad():
        return float((model(given).argmax(1) == labels).float().mean())


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _ratios(whole: Run, smaller: Run, image: Any) -> list[float]:
    """CPU time of ``smaller`` over that of ``whole``, for each pair of blocks."""
    feed = {"image": image.numpy()}
    return [_block(smaller, feed) / _block(whole, feed) for _ in range(PAIRS)]


def _session(model: Any, image: Any) -> Run:
    import onnxruntime

    from edgedeploy.records.artifact import TensorSpec
    from edgedeploy.reference.export import export_reference

    specs = (TensorSpec("image", "float32", tuple(image.shape)),)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_reference(model, specs, path, samples=[{"image": image.numpy()}])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, dict(feed))


def _block(run: Run, feed: Mapping[str, Any]) -> float:
    run(feed)
    started_s = time.process_time()
    for _ in range(QUERIES):
        run(feed)
    return time.process_time() - started_s


ROWS = (low_rank_by_what_is_read, time_of_each_choice, answers_of_each_choice)

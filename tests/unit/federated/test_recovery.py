"""Recovery at a site, and whose own copy of the network is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.recovery import RecoverySettings, load_into, recover, recovery_app, weights_of
from edgedeploy.federated.recovery_personal import judge_personal
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions


def small_task(seed: int) -> SyntheticUltrasound:
    counts = {f"{split}_cases": 2 for split in ("calibration", "selection", "confirmation")}
    task = SyntheticUltrasound(
        UltrasoundOptions(
            resolutions=(32,), image_size=32, base_channels=2, depth=2, train_cases=8, seed=seed, **counts
        )
    )
    task.recovery_recipe = replace(task.recovery_recipe, batch_size=4, bfloat16=False, learning_rate=5e-3)
    return task


def test_rounds_train_at_each_site_and_average_by_cases(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    arch = {"resolution": 32, "upsampling": "transposed"}
    tasks = {1: small_task(0), 2: small_task(1)}

    def model() -> object:
        return tasks[1].build(**arch)

    def loss_of(net: object, task: SyntheticUltrasound) -> float:
        with torch.no_grad():
            return float(np.mean([float(task.loss(net(x), y)) for x, y in task.batches(5, 4, **arch)]))  # type: ignore[operator]

    teacher = model()
    apps = {
        node: recovery_app(task, model, arch=arch, cases=8 * node, epochs=2, teacher=lambda: teacher)
        for node, task in tasks.items()
    }
    start = weights_of(model())
    done = recover(LocalGrid(apps), start, tmp_path, RecoverySettings(2))
    assert done.told[0]["cases"] == {"1": 8, "2": 16}
    before, after = load_into(model(), start), load_into(model(), done.weights)
    for task in tasks.values():
        assert loss_of(after, task) < loss_of(before, task)
    assert {name: value.dtype for name, value in done.weights.items()} == {n: v.dtype for n, v in start.items()}
    again = recover(LocalGrid({}), start, tmp_path, RecoverySettings(2))
    assert all(np.array_equal(again.weights[name], done.weights[name]) for name in start), "nothing is trained again"


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="rounds of recovery"):
        recover(LocalGrid({}), {}, tmp_path, RecoverySettings(0))


def test_a_copy_of_its_own_is_kept_only_where_the_bound_shows_it_is_better() -> None:
    rng = np.random.default_rng(0)
    shared = rng.uniform(0.5, 0.9, 30)
    better = judge_personal((shared + 0.05 + rng.normal(0, 0.02, 30)).tolist(), shared.tolist())
    assert better.kept
    assert better.lower is not None
    assert 0 < better.lower < better.gain
    noise = judge_personal((shared + rng.normal(0.01, 0.2, 30)).tolist(), shared.tolist())
    assert not noise.kept
    few = judge_personal([0.9] * 4, [0.1] * 4)
    assert (few.kept, few.lower) == (False, None), "four cases show nothing, however large the gain"


def test_images_of_one_patient_are_no_independent_proof() -> None:
    rng = np.random.default_rng(1)
    shifts = np.repeat(rng.normal(0.02, 0.06, 8), 10)
    shared = np.full(80, 0.6)
    groups = np.repeat(np.arange(8), 10).tolist()
    alone = judge_personal((shared + shifts).tolist(), shared.tolist())
    grouped = judge_personal((shared + shifts).tolist(), shared.tolist(), groups)
    assert alone.lower is not None
    assert grouped.lower is not None
    assert grouped.lower < alone.lower


def test_values_that_are_not_paired_are_told() -> None:
    with pytest.raises(DataError, match="2 values of its own"):
        judge_personal([1, 2], [1])
    with pytest.raises(DataError, match="no number"):
        judge_personal([float("nan")] * 6, [1.0] * 6)


@pytest.mark.parametrize(
    ("weights", "cases", "said"),
    [
        (np.full(3, 3e38, np.float32), 1, "beyond 1e"),
        (np.full(3, np.inf, np.float32), 1, "not all finite"),
        (np.full(3, 1e300), 1, "types"),
        (np.array(["a", "b", "c"]), 1, "types"),
        (np.ones(3, np.float32), -5, "-5 cases"),
        (np.ones(3, np.float32), 10**9, "1000000000 cases"),
    ],
)
def test_what_a_site_sends_is_left_out_where_it_would_ruin_the_mean(
    weights: np.ndarray, cases: int, said: str, tmp_path: Path
) -> None:
    """Finite weights of 3e38 by two sites are infinite once they are weighed."""
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    def site(sent: np.ndarray, count: int) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: object) -> Message:
            content = RecordDict(
                {"arrays": ArrayRecord({"w": Array(sent)}), "metrics": MetricRecord({"num-examples": count})}
            )
            return Message(content, reply_to=message)

        return app

    sound = np.full(3, 2, np.float32)
    apps = {1: site(sound, 4), 2: site(sound, 4), 3: site(weights, cases), 4: site(weights, cases)}
    done = recover(LocalGrid(apps), {"w": np.zeros(3, np.float32)}, tmp_path, RecoverySettings(1))
    assert np.array_equal(done.weights["w"], sound)
    assert said in done.told[0]["left_out"]["3"]

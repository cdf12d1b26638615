"""Secure sums: what arrives, what the coordinator sees, and that a sum of too few or of wrong values is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.secure_sum import NoAggregate, SumSettings, secure_sum, step_of, sum_app

SITES = (11, 12, 13)


def parts(seed: int = 0) -> dict[int, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {site: [rng.uniform(-1, 1, (5, 7)), rng.integers(0, 2, (40,))] for site in SITES}


def grid_of(arrays: dict[int, list[np.ndarray]], clip: float = 1.0, seen: list[Any] | None = None) -> LocalGrid:
    return LocalGrid({site: sum_app(lambda _, site=site: arrays[site], clip) for site in arrays}, seen)


def after(stages: int, app: Callable[..., Any]) -> Callable[..., Any]:
    """A site that answers so many stages and is gone then."""
    asked = []

    def answered(message: Any, context: Any) -> Any:
        asked.append(message)
        if len(asked) > stages:
            raise ConnectionError("the site is gone")
        return app(message, context)

    return answered


def test_the_sum_is_that_of_all_sites_and_whole_numbers_arrive_exactly() -> None:
    arrays = parts()
    found = secure_sum(grid_of(arrays), SumSettings())
    assert found.sites == 3
    assert not found.dropped
    assert np.abs(found.arrays[0] - sum(a[0] for a in arrays.values())).max() <= 3 * found.step
    assert np.array_equal(found.arrays[1], sum(a[1] for a in arrays.values()))


@pytest.mark.parametrize("sites", [2, 3, 4, 5, 8])
def test_large_whole_numbers_arrive_exactly_up_to_the_clip(sites: int) -> None:
    clip = float(2**27)
    assert step_of(clip, sites) <= 1
    rng = np.random.default_rng(sites)
    arrays = {n: [np.append(rng.integers(-(2**27), 2**27, 50), [2**27, -(2**27)])] for n in range(1, sites + 1)}
    found = secure_sum(grid_of(arrays, clip), SumSettings(clip=clip))
    assert np.array_equal(found.arrays[0], sum(a[0] for a in arrays.values()))


def test_the_coordinator_sees_masked_vectors_alone() -> None:
    arrays, seen = parts(), []
    found = secure_sum(grid_of(arrays, seen=seen), SumSettings())
    masked: dict[int, list[np.ndarray]] = {}
    for message in seen:
        source = message.metadata.src_node_id
        configs = message.content.config_records.get(RECORD_KEY_CONFIGS, {})
        if source in SITES and Key.MASKED_PARAMETERS in configs:
            masked[source] = [bytes_to_ndarray(data) for data in configs[Key.MASKED_PARAMETERS]]
        if source in SITES:
            assert all(len(record) == 0 for record in message.content.array_records.values()), (
                "nothing beside the masks"
            )
    assert set(masked) == set(SITES)
    steps = 2**30
    for site, vectors in masked.items():
        for sent, plain in zip(vectors[1:], arrays[site], strict=True):
            quantized = (plain + 1.0) * steps / 2
            equal = np.abs((sent.astype(float) - quantized) % 2**32) <= 1
            assert equal.mean() < 0.1, "the plain steps would be readable"
    spread = np.concatenate([vectors[2].ravel() for vectors in masked.values()]).astype(float) / 2**32
    assert 0.1 < spread.std() < 0.5, "0 and 1 leave as numbers all over 32 bits"
    assert np.array_equal(found.arrays[1], sum(a[1] for a in arrays.values()))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_site_that_drops_out_at_any_stage_does_not_end_the_sum(stage: int) -> None:
    arrays = parts()
    apps: dict[int, Any] = {site: sum_app(lambda _, site=site: arrays[site], 1.0) for site in SITES}
    apps[13] = after(stage, apps[13])
    found = secure_sum(LocalGrid(apps), SumSettings(least=2))
    inside = SITES if stage == 3 else SITES[:2]  # its values were there before it went
    assert found.sites == len(inside)
    assert set(found.dropped) == {13}
    assert np.array_equal(found.arrays[1], sum(arrays[site][1] for site in inside))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_with_fewer_sites_than_the_least_nothing_is_opened(stage: int) -> None:
    arrays = parts()
    apps: dict[int, Any] = {site: sum_app(lambda _, site=site: arrays[site], 1.0) for site in SITES}
    apps[12], apps[13] = after(stage, apps[12]), after(stage, apps[13])
    with pytest.raises(NoAggregate, match="fewest whose sum is opened") as told:
        secure_sum(LocalGrid(apps), SumSettings(least=2))
    assert "the site is gone" in str(told.value)


def test_values_beyond_the_clip_are_an_error_and_not_cut() -> None:
    arrays = parts()
    arrays[12][0][0, 0] = 1.5
    with pytest.raises(DataError, match="site 12 refused"):
        secure_sum(grid_of(arrays), SumSettings(clip=1.0))
    arrays[12][0][0, 0] = np.nan
    with pytest.raises(DataError, match="site 12 refused"):
        secure_sum(grid_of(arrays), SumSettings(clip=1.0))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match="a sum of one site"):
        secure_sum(grid_of(parts()), SumSettings(least=1))
    with pytest.raises(SpecError, match="clip"):
        secure_sum(grid_of(parts()), SumSettings(clip=0.0))
    with pytest.raises(NoAggregate, match="3 sites are there"):
        secure_sum(grid_of(parts()), SumSettings(least=4))


def test_masks_have_the_entropy_of_their_seeds() -> None:
    """Flower's own generator folds a seed into 32 bits: these two seeds are one to it."""
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    from edgedeploy.federated.masks import drawn

    seed = bytes(range(32))
    other = seed[4:] + seed[:4]
    (flowers, same), (ours, another) = (
        [draw(one, 1 << 32, [(1000,)])[0] for one in (seed, other)] for draw in (pseudo_rand_gen, drawn)
    )
    assert np.array_equal(flowers, same)
    assert not np.array_equal(ours, another) and np.array_equal(ours, drawn(seed, 1 << 32, [(1000,)])[0])
    assert ours.min() >= 0 and ours.max() < 1 << 32 and len(np.unique(ours >> 28)) == 16


def test_a_sum_draws_its_masks_from_full_seeds_and_leaves_flower_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from edgedeploy.federated import masks

    drawn: list[bytes] = []
    before = masks.drawn

    def noted(seed: bytes, *rest: object) -> object:
        drawn.append(seed)
        return before(seed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(masks, "drawn", noted)
    found = secure_sum(LocalGrid({n: sum_app(lambda _: [np.ones(3)], 1.0) for n in (1, 2, 3)}), SumSettings())
    assert found.arrays[0].tolist() == [3, 3, 3]
    assert len(drawn) == 3 * (1 + 2) + 3, (
        "each site one of its own and two with others, the coordinator three to take off"
    )
    mod = sys.modules["flwr.client.mod.secure_aggregation.secaggplus_mod"]
    assert mod.pseudo_rand_gen.__module__.startswith("flwr")  # type: ignore[attr-defined]

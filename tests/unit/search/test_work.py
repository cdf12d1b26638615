"""Multiply-accumulates beside the objectives: at each proposal where more boards follow, else in their turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.certain import TURN
from edgedeploy.search.improvement import hypervolume
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.proposals import Proposals
from edgedeploy.search.space import Space

TWO = ("maximize", "minimize")
BLOCKS = Space(
    targets=("onnxruntime",),
    parameters={f"a{i}": (0, 1, 2, 3) for i in range(4)},
    arch_defaults={f"a{i}": 3 for i in range(4)},
    target_precisions={"onnxruntime": ("float32",)},
    default_threads=1,
)
"""Each block is as accurate as it is large. This board does the last two for nothing; others will not."""


def blocks_of(variant: Variant) -> list[int]:
    arch = dict(variant.arch)
    return [int(arch[f"a{i}"]) for i in range(4)]


def macs_of(variant: Variant) -> float:
    return 1.0 + sum(blocks_of(variant))


def here(variant: Variant) -> Outcome:
    first = sum(blocks_of(variant)[:2])
    return Scored((1 - 0.7 ** sum(blocks_of(variant)), 1.0 + first), {})


def test_one_proposal_in_ten_weighs_what_a_network_computes() -> None:
    """Where all times are alike but for noise, only that leads to what computes least."""

    def turn(knowledge: Knowledge) -> tuple[float, float]:
        drawn = Proposals(BLOCKS, TWO, 0, knowledge=knowledge)
        tried = [params for params in BLOCKS.combinations() if macs_of(BLOCKS.variant(params)) > 4][:TURN]
        asked = []
        for count, params in enumerate(tried):
            if count in (TURN - 2, TURN - 1):
                proposal = drawn.next({BLOCKS.variant(params).digest for params in tried[:count]})
                assert proposal is not None and proposal.belief is not None and len(proposal.belief.expected) == 2
                asked.append(macs_of(BLOCKS.variant(proposal.params)))
            variant = BLOCKS.variant(params)
            accuracy = 1 - 0.7 ** macs_of(variant)
            drawn.tell(params, Scored((accuracy, 5.0 + 1e-3 * len(asked)), {}))
        return asked[0], asked[1]

    figures = Knowledge(statics=lambda variant: {"macs": macs_of(variant)})
    before, in_turn = turn(figures)
    assert in_turn < 5 < before
    assert min(turn(Knowledge())) > 5, "nobody knows what a network computes"


def searched_for(more_boards: bool, seed: int, statics: Callable[[Variant], Mapping[str, float]]) -> list[Variant]:
    drawn = Proposals(BLOCKS, TWO, seed, knowledge=Knowledge(statics=statics), more_boards=more_boards)
    found: list[Variant] = []
    params: Mapping[str, Scalar] = BLOCKS.baseline("onnxruntime")
    while len(found) < 14:
        found.append(BLOCKS.variant(params))
        drawn.tell(params, here(found[-1]))
        proposal = drawn.next({variant.digest for variant in found})
        assert proposal is not None
        assert proposal.belief is None or len(proposal.belief.expected) == 2, "work is nothing that a study asked for"
        params = proposal.params
    assert len({variant.digest for variant in found}) == len(found)
    return found


def test_a_search_for_more_boards_tries_what_is_small_on_any() -> None:
    """Models of which the accuracy is worth its multiply-accumulates, whatever this board does for nothing."""

    def share(found: list[Variant]) -> float:
        points = []
        for variant in found:
            outcome = here(variant)
            assert isinstance(outcome, Scored)
            points.append((-outcome.values[0], np.log(macs_of(variant))))
        return hypervolume(np.array(points), np.array([0.0, np.log(13.0)]))

    gains = []
    for seed in range(2):
        alone, more = (searched_for(more, seed, lambda variant: {"macs": macs_of(variant)}) for more in (False, True))
        gains.append(share(more) - share(alone))
    assert min(gains) > 0, gains


@pytest.mark.parametrize("known", [0, 100])
def test_a_search_for_more_boards_does_not_need_every_networks_work(known: int) -> None:
    def statics(variant: Variant) -> Mapping[str, float]:
        return {"macs": macs_of(variant)} if int(variant.digest, 16) % 256 < known else {}

    searched_for(True, 0, statics)

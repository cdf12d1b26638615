"""What is tried for what it tells: that it says what, and that nothing waits for what is never tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_search import SPACE, landscape

from edgedeploy.records.variant import Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.proposals import Proposal, Proposals

LIMIT = 25.0
TOLD = list(SPACE.combinations())[:14]
DIGESTS = frozenset(SPACE.variant(params).digest for params in TOLD)
UNTRIED = {
    variant.digest: variant for variant in map(SPACE.variant, SPACE.combinations()) if variant.digest not in DIGESTS
}


def proposed(knowledge: Knowledge) -> Proposal:
    """After some outcomes that all miss their limit: the cheapest costs 307."""
    drawn = Proposals(SPACE, ("maximize", "minimize"), 0, knowledge=knowledge, give_up=0.001)
    for params in TOLD:
        outcome = landscape(SPACE.variant(params))
        drawn.tell(params, replace(outcome, constraints={"limit": outcome.values[1] / LIMIT - 1}))
    proposal = drawn.next(DIGESTS)
    assert proposal is not None and proposal.belief is not None
    return proposal


@pytest.mark.parametrize("wanted", list(UNTRIED.values())[::7], ids=lambda variant: variant.label)
def test_what_is_said_is_of_the_variant_that_is_tried(wanted: Variant) -> None:
    """It had been what the one with the largest gain would have told, which may be one that is left out."""
    knowledge = Knowledge(
        explores=lambda variant: f"that of {variant.label}",
        left_out=lambda variant: "" if variant == wanted else "it is another one's network",
    )
    proposal = proposed(knowledge)
    assert SPACE.variant(proposal.params) == wanted
    assert proposal.belief is not None and proposal.belief.explores == f"that of {wanted.label}"


def test_what_comes_before_it_is_tried_for_what_the_later_one_tells() -> None:
    first, wanted = list(UNTRIED.values())[3:5]
    knowledge = Knowledge(
        explores=lambda variant: "what nobody knows" if variant == wanted else "",
        before=lambda variant: first if variant == wanted else None,
    )
    proposal = proposed(knowledge)
    assert SPACE.variant(proposal.params) == first
    assert proposal.belief is not None and proposal.belief.explores == "what nobody knows"


@pytest.mark.parametrize("refused", [False, True])
def test_a_limit_is_given_up_although_what_is_left_out_would_tell_something(refused: bool) -> None:
    """A search had gone on for ever for a limit that no variant meets."""
    knowledge = Knowledge(
        explores=lambda variant: "what nobody knows" if variant.precision == "int8" else "",
        left_out=lambda variant: "it is another one's network" if variant.precision == "int8" and refused else "",
        of_weights=frozenset({"limit"}),
    )
    assert proposed(knowledge).unreachable == ("limit" if refused else "")


def test_what_is_tried_for_what_it_tells_says_so() -> None:
    """It had been told as tried for a gain, which may be next to nothing."""
    asked: list[str] = []
    for explores in ("what nobody knows", ""):
        proposal = proposed(Knowledge(explores=lambda variant, on=explores: on))
        assert proposal.belief is not None
        asked.append(proposal.belief.explores)
        assert proposal.belief.as_json().get("explores", "") == explores
    assert asked == ["what nobody knows", ""]

"""What is certain of candidates: asked for once, never lost, and their work beside it where boards follow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from made_up_search import SPACE

from edgedeploy.records.variant import Variant
from edgedeploy.search.candidates import Candidates
from edgedeploy.search.certain import TURN, Certain
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Failed, Scored

SIGNS = (-1.0, 1.0)


def of_narrow(variant: Variant) -> Mapping[int, float]:
    return {1: 7.0} if variant.width < 1 else {}


def work(variant: Variant) -> Mapping[str, float]:
    return {"macs": 1e6 * variant.width} if variant.width < 1 else {}


@pytest.mark.parametrize("more_boards", [False, True])
def test_what_is_known_of_some_is_known_of_none_wholly_but_for_their_work(more_boards: bool) -> None:
    knowledge = Knowledge(exact=of_narrow, statics=work)
    candidates = Candidates(SPACE, knowledge, 0)
    certain = Certain(SIGNS, knowledge, more_boards)
    assert certain.wholly(len(candidates)) == {}, "nobody has asked yet"
    certain.learn(candidates)
    narrow = [row for row, variant in enumerate(candidates.variants) if variant.width < 1]
    assert certain.known_rows() == narrow and 0 < len(narrow) < len(candidates)
    assert certain.wholly_asked(len(candidates)) == {}
    assert list(certain.wholly(len(candidates))) == ([2] if more_boards else [])
    assert certain.wholly(len(candidates) + 1) == {}, "one joined, of which nobody has asked"


def test_work_that_is_not_known_is_the_most_that_is_and_only_scored_variants_have_it() -> None:
    knowledge = Knowledge(statics=work)
    candidates = Candidates(SPACE, knowledge, 0)
    certain = Certain(SIGNS, knowledge, more_boards=True)
    certain.learn(candidates)
    wide = next(row for row, variant in enumerate(candidates.variants) if variant.width == 1)
    most = 1e6 * max(variant.width for variant in candidates.variants if variant.width < 1)
    assert certain.values[wide, -1] == pytest.approx(most) and np.isnan(certain.log_work(candidates)[wide])
    told = certain.with_work(candidates, wide, Scored((0.9, 5.0), {}, variances=(0.1, 0.2)))
    assert (
        isinstance(told, Scored)
        and told.values == pytest.approx((0.9, 5.0, most))
        and told.variances == (0.1, 0.2, 0.0)
    )
    failed = Failed("Unsupported", "it cannot be built", "build")
    assert certain.with_work(candidates, wide, failed) is failed
    assert not certain.was_asked(2)


def test_work_has_its_turn_where_nothing_is_known_beforehand() -> None:
    plain = Certain(SIGNS, Knowledge(statics=work), more_boards=False)
    assert plain.always == 2 and len(plain.signs) == 3
    assert [told for told in range(3 * TURN) if plain.is_turn_of_work(told)] == [9, 19, 29]
    for other in (
        Certain(SIGNS, Knowledge(statics=work), more_boards=True),
        Certain(SIGNS, Knowledge(statics=work, exact=of_narrow), more_boards=False),
        Certain((*SIGNS, 1.0), Knowledge(statics=work), more_boards=False),
    ):
        assert other.always == len(other.signs)
        assert not any(map(other.is_turn_of_work, range(3 * TURN)))


def test_three_objectives_leave_no_room_for_work() -> None:
    certain = Certain((*SIGNS, 1.0), Knowledge(statics=work), more_boards=True)
    scored = Scored((0.9, 5.0, 2.0), {})
    assert len(certain.signs) == 3
    assert certain.with_work(Candidates(SPACE, Knowledge(statics=work), 0), 0, scored) is scored


def test_what_was_certain_stays_so() -> None:
    answers = {1: 7.0}
    knowledge = Knowledge(exact=lambda variant: dict(answers))
    candidates = Candidates(SPACE, knowledge, 0)
    certain = Certain(SIGNS, knowledge, more_boards=False)
    certain.learn(candidates)
    answers[1] = 8.0
    certain.learn(candidates)
    assert set(certain.values[:, 1]) == {7.0}

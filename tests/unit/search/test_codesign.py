"""The co-design sampler: what it never does, what it makes use of, and that it finds the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from made_up_search import SPACE, landscape

from edgedeploy.records.canonical import Choices
from edgedeploy.records.conditions import Condition
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.candidates import Candidates
from edgedeploy.search.codesign import CoDesign
from edgedeploy.search.improvement import hypervolume
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Failed, Outcome, Scored
from edgedeploy.search.proposals import Proposals, SamplerName
from edgedeploy.search.rungs import Rungs
from edgedeploy.search.space import Space

TWO = ("maximize", "minimize")
LARGE = replace(
    SPACE,
    parameters={**SPACE.parameters, "threads": tuple(range(1, 65)), **{f"a{i}": (0, 1, 2, 3) for i in range(3)}},
    arch_defaults={"resolution": 128, **{f"a{i}": 0 for i in range(3)}},
)


def searched(
    space: Space,
    trials: int,
    evaluate: Callable[[Variant], Outcome] = landscape,
    *,
    seed: int = 0,
    sampler: SamplerName = "co-design",
    knowledge: Knowledge | None = None,
) -> list[tuple[Variant, Outcome]]:
    """Variants with their outcomes, in order, beginning with a baseline."""
    drawn = Proposals(space, TWO, seed, sampler=sampler, knowledge=knowledge or Knowledge())
    found: list[tuple[Variant, Outcome]] = []
    params: Mapping[str, Scalar] = space.baseline(space.targets[0])
    while len(found) < trials:
        variant = space.variant(params)
        found.append((variant, evaluate(variant)))
        drawn.tell(params, found[-1][1])
        proposal = drawn.next({variant.digest for variant, _ in found})
        if proposal is None:
            break
        params = proposal.params
    return found


def test_every_variant_of_a_space_is_proposed_once_whatever_stands_for_it() -> None:
    found = searched(SPACE, 1000)
    digests = [variant.digest for variant, _ in found]
    assert len(set(digests)) == len(digests) == 60  # 72 combinations; onnxruntime has no bfloat16


def test_a_history_that_is_told_again_goes_on_alike() -> None:
    """Also between two of the numbers of observations at which a surrogate's settings are fitted."""
    found = searched(SPACE, 36)
    assert [variant for variant, _ in searched(SPACE, 16)] == [variant for variant, _ in found[:16]]
    for at in (3, 9, 14, 33):
        again = Proposals(SPACE, TWO, 0)
        for variant, outcome in found[:at]:
            params = SPACE.params_of(variant)
            assert params is not None
            again.tell(params, outcome)
        proposal = again.next({variant.digest for variant, _ in found[:at]})
        assert proposal is not None and SPACE.variant(proposal.params) == found[at][0]


def test_a_large_space_is_searched_beside_its_front_and_goes_on_alike() -> None:
    found = searched(LARGE, 14)
    assert len({variant.digest for variant, _ in found}) == 14
    again = Proposals(LARGE, TWO, 0)
    for variant, outcome in found[:12]:
        params = LARGE.params_of(variant)
        assert params is not None
        again.tell(params, outcome)
    proposal = again.next({variant.digest for variant, _ in found[:12]})
    assert proposal is not None and LARGE.variant(proposal.params) == found[12][0]


@pytest.mark.parametrize("sampler", ["co-design", "gp", "tpe", "nsga2", "random"])
def test_no_sampler_proposes_what_is_known_or_forbidden(sampler: SamplerName) -> None:
    never = ({"target": ("openvino",), "precision": ("int8", "bfloat16")}, {"width": (0.25,)})
    found = searched(replace(SPACE, never=never), 1000 if sampler == "co-design" else 14, sampler=sampler)
    variants = [variant for variant, _ in found]
    assert len({variant.digest for variant in variants}) == len(variants)
    assert not [v for v in variants if v.width == 0.25 or (v.target == "openvino" and v.precision != "float32")]
    if sampler == "co-design":
        assert len(variants) == 3 * 3 * (2 + 1)


@pytest.mark.parametrize("sampler", ["co-design", "tpe"])
def test_failures_are_learned_from(sampler: SamplerName) -> None:
    """Int8 cannot be built for openvino, a sixth of all variants."""

    def evaluate(variant: Variant) -> Outcome:
        broken = (variant.target, variant.precision) == ("openvino", "int8")
        return Failed("BuildError", "no") if broken else landscape(variant)

    found = searched(SPACE, 34, evaluate, sampler=sampler)
    failed = [isinstance(outcome, Failed) for _, outcome in found]
    assert sum(failed) <= (5 if sampler == "co-design" else 9)


@pytest.mark.parametrize("sampler", ["co-design", "tpe"])
def test_a_failure_that_was_not_the_variants_teaches_nothing(sampler: SamplerName) -> None:
    """The next run is not told of it, and proposes the same."""
    drawn, again = (Proposals(SPACE, TWO, 0, sampler=sampler) for _ in range(2))
    odd = SPACE.baseline("openvino")
    found = [variant for variant, _ in searched(SPACE, 12) if variant != SPACE.variant(odd)]
    drawn.tell(odd, Failed("Unstable", "the clock drifted"))
    for proposals in (drawn, again):
        for variant in found:
            params = SPACE.params_of(variant)
            assert params is not None
            proposals.tell(params, landscape(variant))
    taken = {SPACE.variant(odd).digest, *(variant.digest for variant in found)}
    if sampler == "co-design":
        assert drawn.next(taken) == again.next(taken)
    else:
        assert [trial.params for trial in drawn._trials()] == [trial.params for trial in again._trials()]


def test_the_front_is_found_in_a_third_of_the_space() -> None:
    def at(outcome: Outcome) -> tuple[float, float]:
        assert isinstance(outcome, Scored)
        return -outcome.values[0], float(np.log(outcome.values[1]))

    whole = np.array([at(landscape(SPACE.variant(params))) for params in SPACE.combinations()])
    reference = whole.max(axis=0) + 0.01
    shares = [
        hypervolume(np.array([at(outcome) for _, outcome in searched(SPACE, 20, seed=seed)]), reference)
        / hypervolume(whole, reference)
        for seed in range(3)
    ]
    assert min(shares) > 0.97


def test_what_is_certain_is_not_predicted() -> None:
    """A landscape without any order: who knows its costs finds the cheapest at once."""
    costs = {
        SPACE.variant(params).digest: float(cost)
        for params, cost in zip(SPACE.combinations(), np.random.default_rng(1).permutation(72) + 1.0, strict=True)
    }

    def evaluate(variant: Variant) -> Outcome:
        return Scored((0.5, costs[variant.digest]), {})

    knowing = searched(SPACE, 8, evaluate, knowledge=Knowledge(exact=lambda variant: {1: costs[variant.digest]}))
    assert min(costs.values()) in [outcome.values[1] for _, outcome in knowing if isinstance(outcome, Scored)]


EDGES = Space(
    targets=("table",),
    parameters={f"edge{at}": ("none", "skip", "narrow", "wide") for at in range(4)},
    arch_defaults={f"edge{at}": "wide" for at in range(4)},
    target_precisions={"table": ("float32",)},
    default_threads=1,
)
WORK_OF = {"none": 0.0, "skip": 0.0, "narrow": 1.0, "wide": 9.0}


def network_of_edges(variant: Variant) -> tuple[float, Scored]:
    """Work and outcome of a MADE-UP network: where no path of edges is whole, its layers are skipped and it guesses."""
    edges = [str(variant.arch_kwargs[f"edge{at}"]) for at in range(4)]
    work = 2.0 + sum(WORK_OF[edge] for edge in edges)
    connected = edges[0] != "none" or (edges[1] != "none" and edges[2] != "none")
    accuracy = 0.5 + 0.01 * work if connected else 0.01
    return work, Scored((accuracy, work * (1.0 if connected else 0.001 * (1 + edges.count("wide")))), {})


def test_times_that_no_work_allows_are_soon_left_alone() -> None:
    """Where the figure is named otherwise, nobody knows it for work. Of 256 networks 28 guess, and useful accuracies lie so
    far apart that one of them more must not make those that guess look useful."""

    def guessing(name: str, seed: int) -> int:
        knowledge = Knowledge(
            statics=lambda variant: {name: network_of_edges(variant)[0]},
            exact=lambda variant: {1: network_of_edges(variant)[1].values[1]},
        )
        found = searched(EDGES, 25, lambda one: network_of_edges(one)[1], seed=seed, knowledge=knowledge)
        return sum(outcome.values[0] < 0.1 for _, outcome in found if isinstance(outcome, Scored))

    knowing, not_knowing = (sum(guessing(name, seed) for seed in range(2)) for name in ("macs", "size"))
    assert knowing < not_knowing < 20, f"{knowing} and {not_knowing} of 50"


def test_sides_of_tiles_are_numbers_and_batches_those_that_are_built() -> None:
    space = Space(
        targets=("batching", "single"),
        parameters={"tile": (32, 64, 96), "overlap": (4, 8, 16), "max_batch": (4, 1)},
        arch_defaults={},
        target_precisions=dict.fromkeys(("batching", "single"), ("float32",)),
        default_threads=1,
        choices=Choices(batched=("batching",)),
    )
    found = Candidates(space, Knowledge(), seed=0)
    _, tile, overlap, batch = found.columns()
    assert (tile.values, overlap.values, batch.values) == ((32, 64, 96), (4, 8, 16), (4, 1))
    assert tile.places is not None and overlap.places is not None
    assert {batch.values[code] for code in found.codes()[:, 3]} == {1}, "what is cut has no batches"


def test_what_has_to_come_before_is_proposed_first_and_what_is_left_out_never() -> None:
    """A smaller resolution only once the larger one of the same kind has an outcome."""
    known: set[tuple[object, ...]] = set()
    for sampler in ("co-design", "random"):
        known.clear()

        def key(variant: Variant, resolution: object) -> tuple[object, ...]:
            return variant.target, variant.precision, variant.width, resolution

        def before(variant: Variant) -> Variant | None:
            larger = {128: None, 96: 128, 64: 96}[int(variant.arch_kwargs["resolution"])]
            if larger is None or key(variant, larger) in known:
                return None
            first = replace(variant, arch=(("resolution", larger),))
            return before(first) or first

        def evaluate(variant: Variant) -> Outcome:
            assert not known or before(variant) is None
            known.add(key(variant, variant.arch_kwargs["resolution"]))
            return landscape(variant)

        assert len(searched(SPACE, 14, evaluate, sampler=sampler, knowledge=Knowledge(before=before))) == 14
    drawn = Proposals(SPACE, TWO, 0, knowledge=Knowledge(left_out=lambda _: "no"))
    assert drawn.next(()) is None


def test_the_cheaper_of_two_gains_comes_first() -> None:
    """Variants of openvino are the better ones, and their evaluations are said to take a thousand times as long."""

    def evaluate(variant: Variant) -> Outcome:
        accuracy, cost = landscape(variant).values
        return Scored((accuracy + 0.05 * (variant.target == "openvino"), cost), {})

    cost = Knowledge(cost_s=lambda variant: 1000.0 if variant.target == "openvino" else 1.0)
    targets = [variant.target for variant, _ in searched(SPACE, 14, evaluate, knowledge=cost)]
    assert targets[6:].count("openvino") <= 3
    assert [variant.target for variant, _ in searched(SPACE, 14, evaluate)][6:].count("openvino") >= 6


def test_boards_that_search_together_are_given_different_variants() -> None:
    drawn = Proposals(SPACE, TWO, 0)
    found = searched(SPACE, 10)
    for variant, outcome in found:
        params = SPACE.params_of(variant)
        assert params is not None
        drawn.tell(params, outcome)
    taken = {variant.digest for variant, _ in found}
    under_way: list[Mapping[str, Scalar]] = []
    for _ in range(4):
        proposal = drawn.next(taken, under_way)
        assert proposal is not None
        variant = SPACE.variant(proposal.params)
        assert variant.digest not in taken
        taken.add(variant.digest)
        under_way.append(proposal.params)
    assert len({(params["width"], params["resolution"]) for params in under_way}) > 1, "not one corner of the space"


def test_constraints_are_kept_to() -> None:
    """Where nothing above a cost is wanted, that is where the search stays away from."""
    found = searched(SPACE, 24)
    kept = [outcome.constraints["cost"] <= 0 for _, outcome in found[8:] if isinstance(outcome, Scored)]
    assert sum(kept) >= 13 > 0.5 * len(kept)


def test_a_limit_on_an_objective_counts_once() -> None:
    """It moves the point from which gains count; the probability of meeting it would count the same doubt again."""
    knowledge = Knowledge(limits={1: 12_000.0}, limited=frozenset({"cost"}))
    unnamed = replace(knowledge, limited=frozenset())

    def gains(known: Knowledge) -> list[float]:
        sampler = CoDesign(SPACE, TWO, 0, known)
        told = searched(SPACE, 12)
        for variant, outcome in told:
            params = SPACE.params_of(variant)
            assert params is not None
            sampler.tell(params, outcome)
        assert sampler.propose({variant.digest for variant, _ in told}, ()) is not None
        beliefs = (sampler.belief({"target": "openvino", "width": width}) for width in SPACE.parameters["width"])
        return [belief.gain for belief in beliefs if belief]

    once, twice = gains(knowledge), gains(unnamed)
    assert once and all(a >= b for a, b in zip(once, twice, strict=True)) and sum(once) > sum(twice)


ONLY = (
    Condition("precision", {"width": (0.5, 0.25)}),
    Condition("resolution", {"precision": ("int8", "float32"), "target": ("onnxruntime",)}),
)


@pytest.mark.parametrize("sampler", ["co-design", "tpe"])
def test_a_parameter_that_does_not_matter_has_the_baseline_s_value(sampler: SamplerName) -> None:
    space = replace(SPACE, only=ONLY)
    found = searched(space, 1000 if sampler == "co-design" else 14, sampler=sampler)
    variants = [variant for variant, _ in found]
    assert len({variant.digest for variant in variants}) == len(variants)
    for variant in variants:
        assert variant.width <= 0.5 or variant.precision == "float32"
        assert variant.target == "onnxruntime" or variant.arch_kwargs["resolution"] == 128
    if sampler == "co-design":
        expected = {space.variant(params).digest for params in space.combinations()}
        assert {variant.digest for variant in variants} == expected


def test_conditions_make_no_two_combinations_of_one_variant() -> None:
    space = replace(SPACE, only=ONLY)
    listed = list(space.combinations())
    assert 0 < len(listed) < SPACE.size()
    for params in listed:
        assert space.settled(params) == params
        for near in space.neighbours(params):
            assert near != params and space.settled(near) == near
    odd = {"target": "openvino", "width": 1.0, "precision": "int8", "resolution": 64}
    plain = space.baseline("openvino")
    assert space.settled(odd) == plain and space.variant(odd) == space.variant(plain)
    assert space.params_of(space.variant(odd)) == plain
    assert space.baseline_variant("openvino") == space.variant(plain)
    assert not replace(space, never=({"precision": ("float32",), "width": (1.0,)},)).allows(odd)


def test_a_precision_counts_as_the_target_builds_it() -> None:
    space = replace(SPACE, only=(Condition("resolution", {"precision": ("bfloat16",)}),))
    asked = {"width": 1.0, "precision": "bfloat16", "resolution": 64}
    assert space.variant({**asked, "target": "openvino"}).arch_kwargs["resolution"] == 64
    assert space.variant({**asked, "target": "onnxruntime"}).arch_kwargs["resolution"] == 128, "it builds float32"


def test_while_nothing_meets_the_limits_no_gain_is_a_share_of_anything() -> None:
    """It had been a share of a millionth of a millionth: 11424943945811.87 % of the front's volume."""
    drawn = Proposals(SPACE, TWO, 0)

    def tell(count: int, missed: float) -> None:
        for params in list(SPACE.combinations())[:count]:
            outcome = landscape(SPACE.variant(params))
            drawn.tell(params, replace(outcome, constraints={"cost": missed}))

    tell(12, 0.4)
    proposal = drawn.next(())
    assert proposal is not None and proposal.belief is not None
    assert proposal.belief.gain is None and proposal.best_gain == np.inf
    drawn = Proposals(SPACE, TWO, 0)
    tell(12, -0.4)
    proposal = drawn.next(())
    assert proposal is not None and proposal.belief is not None
    assert proposal.belief.gain is not None and 0 < proposal.belief.gain < 10
    assert proposal.best_gain is not None and proposal.best_gain >= proposal.belief.gain


def test_nothing_is_trained_further_before_anything_can_be_predicted() -> None:
    """Among the first points of a study with one target there had been trainings, as long as the longest rung."""
    space = replace(SPACE, targets=("onnxruntime",), parameters={**SPACE.parameters, "recovery_epochs": (0, 4, 12, 36)})
    rungs = Rungs.of((0, 4, 12, 36))
    for seed in range(5):
        knowledge = Knowledge(trains=lambda variant: rungs.below(variant) is not None)
        found = searched(space, 6, seed=seed, knowledge=knowledge)
        assert [variant.label for variant, _ in found if rungs.below(variant) is not None] == []
    few = replace(space, parameters={"width": (1.0, 0.5), "recovery_epochs": (0, 4)})
    found = searched(few, 10, knowledge=Knowledge(trains=lambda variant: rungs.below(variant) is not None))
    assert any(variant.recovery_epochs == 4 for variant, _ in found), "where there is nothing else, it is tried"

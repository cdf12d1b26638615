"""What a study knows of variants before it evaluates them, for a search that makes use of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Outcome


def _nothing(_: Variant) -> Mapping[str, float]:
    return {}


def _no_values(_: Variant) -> Mapping[int, float]:
    return {}


def _nobody(_: Variant) -> Variant | None:
    return None


def _no_reason(_: Variant) -> str:
    return ""


def _unheard(_: Variant, __: Outcome) -> None: ...


def _nothing_new(_: Variant) -> bool:
    return False


@dataclass(frozen=True)
class Knowledge:
    """Every field may be left out. The callables are asked for each candidate at each proposal: they have to be as fast as
    looking something up. Proposals are a function of seed and history only where these are one too.

    - ``statics``: positive figures by name that say how large a variant is, such as MACs, parameters or bytes; estimates
      are welcome, because nothing but the search reads them. Asked once for each variant.
    - ``exact``: values that are certain without an evaluation, by the index of the objective. They replace a prediction.
    - ``cost_s``: expected seconds of an evaluation; with it the search looks for the largest gain per second.
    - ``before``: the variant that has to be evaluated before this one may be; None when it may be evaluated now. Where the
      largest gain is, it goes first.
    - ``left_out``: why a variant is never to be proposed, as things are now; empty when it may be.
    - ``told``: hears of each outcome, in the order in which the search does.
    - ``without_effect``: for each objective, names of parameters that cannot change it.
    - ``explores``: what evaluating the variant tells that nothing else has told so far, such as what training gives to a
      network of its size; empty for nothing. While there are such variants, the best of them come first.
    - ``trains``: whether the variant is there to be trained further: nothing is before anything can be predicted.
    - ``limits``: values of objectives, by index, beyond which a variant is of no use, as a constraint says; ``limited`` are
      the names of these constraints, which so count once.
    - ``of_weights``: the names of constraints that training may change, because they hang on what a network answers.
    - ``bounds``: the best values that objectives can have, by index: nothing better is expected.
    - ``linear``: indices of objectives of which gains count by their difference; of others that are positive and minimised
      they count by their ratio.
    """

    statics: Callable[[Variant], Mapping[str, float]] = _nothing
    exact: Callable[[Variant], Mapping[int, float]] = _no_values
    cost_s: Callable[[Variant], float] | None = None
    before: Callable[[Variant], Variant | None] = _nobody
    left_out: Callable[[Variant], str] = _no_reason
    told: Callable[[Variant, Outcome], None] = _unheard
    explores: Callable[[Variant], str] = _no_reason
    trains: Callable[[Variant], bool] = _nothing_new
    without_effect: tuple[frozenset[str], ...] = ()
    limits: Mapping[int, float] = field(default_factory=dict)
    limited: frozenset[str] = frozenset()
    of_weights: frozenset[str] = frozenset()
    bounds: Mapping[int, float] = field(default_factory=dict)
    linear: frozenset[int] = frozenset()

    @property
    def has_exact(self) -> bool:
        return self.exact is not _no_values


NO_KNOWLEDGE = Knowledge()

"""What a study knows of variants before it evaluates them, for a search that makes use of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgedeploy.records.variant import Variant


def _nothing(_: Variant) -> Mapping[str, float]:
    return {}


def _no_values(_: Variant) -> Mapping[int, float]:
    return {}


def _always(_: Variant) -> bool:
    return True


@dataclass(frozen=True)
class Knowledge:
    """Every field may be left out. The callables are asked for each candidate at each proposal: they have to be as fast as
    looking something up. Proposals are a function of seed and history only where these are one too.

    - ``statics``: positive figures by name that say how large a variant is, such as MACs, parameters or bytes; estimates
      are welcome, because nothing but the search reads them. Asked once for each variant.
    - ``exact``: values that are certain without an evaluation, by the index of the objective. They replace a prediction.
    - ``cost_s``: expected seconds of an evaluation; with it the search looks for the largest gain per second.
    - ``ready``: whether a variant may be proposed now.
    - ``without_effect``: for each objective, names of parameters that cannot change it.
    """

    statics: Callable[[Variant], Mapping[str, float]] = _nothing
    exact: Callable[[Variant], Mapping[int, float]] = _no_values
    cost_s: Callable[[Variant], float] | None = None
    ready: Callable[[Variant], bool] = _always
    without_effect: tuple[frozenset[str], ...] = ()

    @property
    def has_exact(self) -> bool:
        return self.exact is not _no_values


NO_KNOWLEDGE = Knowledge()

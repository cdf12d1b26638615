"""Sums of the sites' arrays, of which the coordinator sees the sum alone: SecAgg+ as Flower has it.

Bell et al. 2020 (arXiv 2002.06511): each site adds masks that cancel in the sum, and shares the seeds of its masks among the
others, so that the sum can be opened although a site drops out. Flower 1.42 has it in its legacy interface only, and there a
round can end without a sum and without an error; here that is an error. Its masks have 32 bits of entropy; here they have
their seeds' (:mod:`edgedeploy.federated.masks`).

What it does not hide: the sum itself, and how many sites are in it. Of a sum of two, each site knows the other's part. The
coordinator is taken to follow the protocol: it hands out the public keys.

Values travel as whole steps of 2 * clip / 2^k: k is 30 for two and three sites and one less for each doubling, because the
sum has 32 bits. Multiples of a step arrive exactly, others are rounded at random to one of their two neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, EdgeDeployError, SpecError
from edgedeploy.federated.masks import full_seeds
from edgedeploy.federated.needs import flower

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp.grid import Grid

Floats = npt.NDArray[np.float64]

LEAST_SITES: Final = 2
"""SecAgg+ cannot open a sum of one."""
MODULUS_BITS: Final = 32
REFUSED: Final = "refused to send"
"""In the reason of a site that sends nothing because its values do not fit: nobody may open a sum without knowing it."""


class NoAggregate(EdgeDeployError):
    """A round that ended without a sum. Nothing of any site was opened."""

    exit_code = 3


@dataclass(frozen=True)
class SumSettings:
    """``clip``: the largest magnitude of any value. ``least``: the fewest sites whose sum is opened; also how many of them
    would have to work together with the coordinator to see another's values. ``timeout_s``: of each of the four stages."""

    clip: float = 1.0
    least: int = LEAST_SITES
    timeout_s: float | None = 600.0


@dataclass(frozen=True, eq=False)
class Summed:
    """``arrays`` are sums over ``sites`` sites; ``dropped`` says why others are missing, by node. ``step`` is the largest
    rounding error that each site may have added."""

    arrays: tuple[Floats, ...]
    sites: int
    dropped: Mapping[int, str]
    step: float


def step_of(clip: float, sites: int) -> float:
    """The distance of two values that can be told apart."""
    return 2.0 * clip / _steps(sites)


def _steps(sites: int) -> int:
    """Steps that one value may have: a power of two, so that the sum of all sites stays below 2^32."""
    return 1 << (MODULUS_BITS - 1 - int(math.log2(sites)))


def checked(arrays: Sequence[npt.NDArray[Any]], clip: float) -> list[Floats]:
    """As float64. Raises ``DataError`` for values that are no numbers or beyond ``clip``, which Flower would cut without a
    word."""
    found = [np.asarray(array, np.float64) for array in arrays]
    for place, array in enumerate(found):
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= clip:
            raise DataError(
                f"array {place} of a secure sum: {REFUSED}",
                f"a value of magnitude {largest:.6g}, and sums are clipped at {clip:g}",
                "Scale what is sent, or state a larger clip at the coordinator and all sites",
            )
    return found


def sum_app(planes: Callable[[Sequence[npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]], clip: float) -> ClientApp:
    """A site's app: ``planes`` is asked for its arrays when the coordinator asks for the sum, and they leave it masked. It
    gets the arrays that the coordinator sent with the question, whose shapes and values are the site's to check."""
    with flower("a secure sum"):
        from flwr.app import Context
        from flwr.client import NumPyClient
        from flwr.client.mod import secaggplus_mod
        from flwr.clientapp import ClientApp

    class Site(NumPyClient):
        def fit(self, parameters: Any, config: Any) -> tuple[list[Floats], int, dict[str, Any]]:
            return checked(planes(parameters), clip), 1, {}

    def client(context: Context) -> Any:
        return Site().to_client()

    def masked(message: Any, context: Any, call_next: Any) -> Any:
        with full_seeds():
            return secaggplus_mod(message, context, call_next)

    return ClientApp(client, mods=[masked])


def secure_sum(grid: Grid, settings: SumSettings, ask: Sequence[npt.NDArray[Any]] = ()) -> Summed:
    """The sum of what the sites on ``grid`` send, each an app of :func:`sum_app` with the same clip. ``ask`` are arrays that
    every site gets with the question.

    A site that drops out before it shared its seeds makes a round fail; it is begun anew without that site. Later ones are
    left out of the sum. Raises ``NoAggregate`` where fewer than ``least`` sites are left or a round ends without a sum,
    ``DataError`` where a site refused to send its values, ``SpecError`` for settings that cannot be.
    """
    nodes = sorted(grid.get_node_ids())
    _check(settings, nodes)
    dropped: dict[int, str] = {}
    while True:
        alive = [node for node in nodes if node not in dropped]
        if len(alive) < settings.least:
            raise _too_few(alive, dropped, settings)
        arrays, count, errors = _round(grid, alive, settings, ask)
        refused = {node: reason for node, reason in errors.items() if REFUSED in reason}
        if refused:
            node, reason = next(iter(refused.items()))
            raise DataError(
                "a secure sum", f"site {node} refused: {reason}", "Scale its values, or state a larger clip"
            )
        if arrays is not None:
            if count < settings.least:
                raise _too_few(alive[:count], dropped | errors, settings)
            step = step_of(settings.clip, len(alive))
            whole = tuple(np.rint(array * count / step) * step for array in arrays)
            return Summed(whole, count, dropped | errors, step)
        if not errors:
            raise NoAggregate(
                "a secure sum", "the round ended without an aggregate, and no site told why", "Run it again"
            )
        dropped |= errors


def _check(settings: SumSettings, nodes: Sequence[int]) -> None:
    if settings.least < LEAST_SITES:
        found = f"least = {settings.least}: a sum of one site is that site's values"
        raise SpecError("a secure sum", found, f"State {LEAST_SITES} or more")
    if not (math.isfinite(settings.clip) and settings.clip > 0):
        raise SpecError("a secure sum", f"clip = {settings.clip}", "State the largest magnitude that a site may send")
    if len(nodes) < settings.least:
        raise _too_few(nodes, {}, settings)


def _too_few(alive: Sequence[int], dropped: Mapping[int, str], settings: SumSettings) -> NoAggregate:
    told = "; ".join(f"site {node}: {reason[:200]}" for node, reason in dropped.items())
    found = f"{len(alive)} sites are there, and {settings.least} are the fewest whose sum is opened"
    return NoAggregate(
        "a secure sum", f"{found}{f' ({told})' if told else ''}", "Bring the others back, and run it again"
    )


def _round(
    grid: Grid, nodes: Sequence[int], settings: SumSettings, ask: Sequence[npt.NDArray[Any]]
) -> tuple[list[Floats] | None, int, dict[int, str]]:
    """Mean of each array over the sites that took part, their number, and what the others answered; None without a mean."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    from edgedeploy.federated.grid import WatchedGrid, quiet_flower, server_identity

    watched = WatchedGrid(grid)
    strategy = _kept_sum(watched, nodes, ask)
    state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}), MAIN_PARAMS_RECORD: ArrayRecord()})
    workflow = SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=settings.least,
        max_weight=1.0,
        clipping_range=float(settings.clip),
        quantization_range=_steps(len(nodes)),
        modulus_range=1 << MODULUS_BITS,
        timeout=settings.timeout_s,
    )
    with quiet_flower(), server_identity(), full_seeds():
        context = LegacyContext(Context(watched.run.run_id, 0, {}, state, {}), strategy=strategy)
        workflow(watched, context)
    return strategy.arrays, strategy.sites, watched.errors


def _kept_sum(grid: Any, nodes: Sequence[int], asked: Sequence[npt.NDArray[Any]] = ()) -> Any:
    """The strategy that the workflow asks whom to call and tells the mean: it keeps it, and nothing else."""
    from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.compat.grid_client_proxy import GridClientProxy
    from flwr.server.strategy import FedAvg

    class Kept(FedAvg):
        arrays: list[Floats] | None = None
        sites = 0

        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[Any]:
            ask = FitIns(ndarrays_to_parameters(list(asked)), {})
            return [(GridClientProxy(node_id=node, grid=grid, run_id=grid.run.run_id), ask) for node in nodes]

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[None, dict[str, Any]]:
            if results:
                self.arrays = [
                    np.asarray(array, np.float64) for array in parameters_to_ndarrays(results[0][1].parameters)
                ]
                self.sites = len(results)
            return None, {}

    return Kept()

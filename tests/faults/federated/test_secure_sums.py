"""Secure sums that end without a sum: Flower's workflow returns as if all were well, and edgedeploy does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgedeploy.federated.grid import LocalGrid, quiet_flower, server_identity
from edgedeploy.federated.secure_sum import NoAggregate, SumSettings, _kept_sum, secure_sum, sum_app

pytestmark = pytest.mark.beside


class Silent(LocalGrid):
    """Sites that never answer: the timeout of a stage ends, and nothing came back."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Any]:
        return []


def apps() -> dict[int, Callable[..., Any]]:
    return {site: sum_app(lambda _: [np.ones(3)], 1.0) for site in (1, 2, 3)}


@pytest.mark.fault(58)
def test_a_round_in_which_nobody_answers_is_an_error() -> None:
    with pytest.raises(NoAggregate, match="no answer in time"):
        secure_sum(Silent(apps()), SumSettings(timeout_s=0.1))


@pytest.mark.fault(58)
def test_flowers_own_workflow_ends_without_a_sum_and_without_an_error() -> None:
    """Why it has to be looked at: the same round by Flower alone returns."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    grid = Silent(apps())
    strategy = _kept_sum(grid, [1, 2, 3])
    state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}), MAIN_PARAMS_RECORD: ArrayRecord()})
    with quiet_flower(), server_identity():
        context = LegacyContext(Context(1, 0, {}, state, {}), strategy=strategy)
        SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=2, timeout=0.1)(grid, context)
    assert strategy.arrays is None


@pytest.mark.fault(58)
def test_a_round_whose_sites_all_fail_names_their_reasons() -> None:
    def broken(message: Any, context: Any) -> Any:
        raise RuntimeError("its disk is gone")

    with pytest.raises(NoAggregate, match="its disk is gone"):
        secure_sum(LocalGrid(dict.fromkeys((1, 2, 3), broken)), SumSettings())

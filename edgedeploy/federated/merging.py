"""The coordinator's part in a secure sum of histograms: Flower's workflow over the sites' spools, and the ranges of the sum.

A stage is a request to each site, as any other; the sites' answers are read from their spools. Every site has to be in the
sum: ranges without one of them could cut its values. A round that ends without a sum is an error, and nothing is released.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from edgedeploy.errors import DataError, EdgeDeployError
from edgedeploy.federated.calibration import MergedHistograms, merge_sites
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.secure_sum import NoAggregate, SumSettings
from edgedeploy.federated.sum_messages import SumAsked, SumSaid, answer_of, asked_of
from edgedeploy.federated.summing import HistogramsStay, places
from edgedeploy.files import parsed, read_plain, write_json

FORM: Final = "edgedeploy.site-ranges/1"
MOST_BYTES: Final = 1 << 20
STAYS: Final = HistogramsStay.__name__

Ask = Callable[[int, SumAsked], int]
"""Asks a site (by node) a stage; the number of the request."""
Reply = Callable[[int, int], "SumSaid | str | None"]
"""What a site answered to a request: None where it has not yet, the class of its error where it could not."""


class SpoolGrid(LocalGrid):
    """Flower's messages as requests to sites. ``nodes`` are the sites' names by number."""

    def __init__(self, nodes: Mapping[int, str], ask: Ask, reply: Reply, poll_s: float) -> None:
        super().__init__({})
        self._nodes, self._ask, self._reply, self._poll_s = dict(nodes), ask, reply, poll_s

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = {message.metadata.dst_node_id: message for message in messages}
        found = self.exchange({node: asked_of(message.content, node) for node, message in sent.items()}, timeout)
        return [self._message(sent[node], said) for node, said in found.items()]

    def exchange(self, asked: Mapping[int, SumAsked], timeout: float | None) -> dict[int, SumSaid | str]:
        """What the sites said in ``timeout`` seconds, or the class of their errors; those that said nothing are missing."""
        numbers = {node: self._ask(node, question) for node, question in asked.items()}
        give_up_s = math.inf if timeout is None else time.monotonic() + timeout
        found: dict[int, SumSaid | str] = {}
        while True:
            for node in asked.keys() - found.keys():
                said = self._reply(node, numbers[node])
                if said is not None:
                    found[node] = said
            if len(found) == len(asked) or time.monotonic() >= give_up_s:
                return found
            time.sleep(self._poll_s)

    def _message(self, asked: Message, said: SumSaid | str) -> Message:
        if isinstance(said, SumSaid):
            try:
                return Message(answer_of(said), reply_to=asked)
            except EdgeDeployError as exc:
                said = str(exc)
        node = self._nodes[asked.metadata.dst_node_id]
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{node}: {said}"), reply_to=asked)


@dataclass(frozen=True)
class SiteRanges:
    """Ranges of a network's tensors by place, over the cases of all sites. ``network`` names the weights and tensors
    (:func:`edgedeploy.federated.summing.network_digest`)."""

    network: str
    sites: int
    cases: int
    ranges: tuple[tuple[float, float], ...]

    def write(self, path: Path) -> None:
        told = {"form": FORM, "network": self.network, "sites": self.sites, "cases": self.cases}
        write_json(path, {**told, "ranges": [list(pair) for pair in self.ranges]})


def read_site_ranges(path: Path) -> SiteRanges:
    """Raises ``DataError`` for a file that is none."""
    try:
        found = parsed(read_plain(path, MOST_BYTES))
        pairs = tuple((float(low), float(high)) for low, high in found["ranges"])
        if found["form"] != FORM or not all(-math.inf < low <= 0 <= high < math.inf for low, high in pairs):
            raise ValueError(f"it is no {FORM}")
        return SiteRanges(str(found["network"]), int(found["sites"]), int(found["cases"]), pairs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DataError(f"ranges {path}", str(exc) or type(exc).__name__, "Remove it: --resume sums again") from None


def merge(grid: SpoolGrid, names: Mapping[int, str], wait_s: float) -> SiteRanges:
    """The ranges over the cases of all sites.

    Raises ``NoAggregate`` where a site is silent, lets no histograms leave or could not observe, and where a round ends
    without a sum; ``DataError`` where the sites observe different networks.
    """
    began = grid.exchange({node: SumAsked(stage="begin", node=node) for node in names}, wait_s)
    problems = [f"{name}: {_why(began.get(node))}" for node, name in names.items() if _why(began.get(node))]
    if problems:
        raise NoAggregate("the ranges of all sites", "; ".join(problems), "Every site has to take part; then --resume")
    said = {node: found for node, found in began.items() if isinstance(found, SumSaid)}
    kinds = {(one.network, one.tensors) for one in said.values()}
    if len(kinds) > 1:
        told = ", ".join(
            f"{names[node]} {one.tensors} tensors of {str(one.network)[:12]}" for node, one in said.items()
        )
        raise DataError("the ranges of all sites", told, "All sites need one release of torch and edgedeploy")
    network, tensors = kinds.pop()
    found = merge_sites(grid, str(network), places(tensors), SumSettings(least=len(names), timeout_s=wait_s))
    return site_ranges(found)


def site_ranges(found: MergedHistograms) -> SiteRanges:
    ranges = found.ranges()
    return SiteRanges(found.model, found.sites, found.cases, tuple(ranges[name] for name in found.tensors))


def _why(said: SumSaid | str | None) -> str:
    if said is None:
        return "no answer in time"
    if isinstance(said, str):
        return "it lets no histograms leave ([leaves] histograms), or not of so few sites" if said == STAYS else said
    return "" if said.network is not None and said.tensors else "it says nothing of its network"

"""What a study needs before it starts, every part held against what is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedeploy.interfaces.board import Board
from edgedeploy.interfaces.target import Target
from edgedeploy.interfaces.task import Task
from edgedeploy.lab.cluster import Cluster
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import ProtocolPlan
from edgedeploy.search.space import Space


@dataclass(frozen=True)
class Ready:
    """A study whose every part was found to work."""

    task: Task
    targets: Mapping[str, Target]
    boards: tuple[tuple[Board | None, BoardInfo], ...]
    """Several, or one; a board of the cluster is behind its worker."""
    cluster: Cluster | None
    space: Space
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    """What is worth knowing of the boards before the study begins."""
    protocols: tuple[ProtocolPlan, ...]

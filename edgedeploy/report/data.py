"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgedeploy.evidence.front import Front
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.pictures import CasePicture
from edgedeploy.report.rivals import Rival
from edgedeploy.study.left import NotTried, Promotion
from edgedeploy.study.outline import Outline
from edgedeploy.study.plans import MadePlan


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. ``measurements`` are those the front was built from, invalid ones included;
    ``seconds`` is the time account by phase, ``overhead`` the share of it that is not work (None: not known);
    ``training`` how the baseline was trained, ``trainings`` how the other models were (see ``Store``);
    ``openings`` the log of the confirmation split (``utc``, ``reason``, ``variants``); ``command`` what was typed;
    ``not_tried`` the rungs that the last run left, ``promoted`` those that were climbed in all runs; ``plans`` the plans of
    budgets by target and budget; ``rivals`` who cannot be told apart from the pick; ``outline`` the shape of the pick's
    network."""

    name: str
    front: Front
    measurements: Sequence[Measurement]
    study_text: str
    command: str
    confirmation: Sequence[Measurement] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    overhead: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    trainings: Sequence[Mapping[str, Any]] = ()
    openings: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[CasePicture] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created_utc: str = ""
    notes: Sequence[str] = ()
    not_tried: Sequence[NotTried] = ()
    promoted: Sequence[Promotion] = ()
    plans: Mapping[str, Mapping[str, MadePlan]] = field(default_factory=dict)
    rivals: Sequence[Rival] = ()
    outline: Outline = field(default_factory=Outline)

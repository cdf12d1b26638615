"""What a notebook shows of a study and its result: HTML of the same tables as the terminal's, and a data frame."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from html import escape
from typing import Any

from edgedeploy.errors import TargetUnavailable
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.html import table_html
from edgedeploy.evidence.rows import front_rows
from edgedeploy.report.terminal import front_table


def front_html(front: Front) -> str:
    """The front's table and what belongs below it. Whatever variants and boards are called is text."""
    shown = front_table(front)
    notes = "".join(f"<p>{escape(note)}</p>" for note in (*shown.notes, *front.explanation()))
    return f"<div><strong>{escape(shown.title)}</strong>{table_html(shown.headers, shown.rows)}{notes}</div>"


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A name and what it is, a line each."""
    rows = [(name, str(value)) for name, value in facts.items()]
    return f"<div><strong>{escape(title)}</strong>{table_html((), rows)}</div>"


def front_frame(front: Front) -> Any:
    """A ``pandas.DataFrame`` of :func:`edgedeploy.evidence.rows.front_rows`. Raises ``TargetUnavailable`` without pandas."""
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError:
        found = "pandas is not installed"
        raise TargetUnavailable("a data frame", found, "pip install 'edgedeploy[notebook]', or pandas") from None
    return pandas.DataFrame(front_rows(front))

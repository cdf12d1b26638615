"""Tables of HTML, for notebooks. Whatever a cell says is text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table_html(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """Cells may have several lines."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headers)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(text)}</td>' for text in row)}</tr>" for row in rows)
    above = f"<strong>{escape(title)}</strong>" if title else ""
    return f"{above}<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    return escape(text).replace("\n", "<br>")

"""The report as one Markdown page for a pull request: the answer and the tables, without pictures.

Whatever a study says is text there too: what Markdown or HTML would take for more is written as a character of its own, and
nobody is mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from edgedeploy.report.blocks import Block, Cell, Columns, Fact, Fold, Points, Section, Summary, Table, Text

LONGEST: Final = 60_000
"""Characters; a comment on GitHub may have 65,536. Folded sections that would not fit are left out, and named."""

_SPECIAL: Final = re.compile(r"([\\`*_\[\]#|~$])")
_LEADING: Final = ("-", "+", ">", "=")
_LIST: Final = re.compile(r"^(\d+)([.)])(?=\s|$)")
"""What begins a list, a quotation or a heading."""


def markdown(summary: Summary, sections: Sequence[Section]) -> str:
    """The page; a section without words or tables is left out."""
    parts = [_head(summary), *(part for section in sections if not section.folded and (part := _section(section)))]
    size = sum(map(len, parts))
    left_out = []
    for section in sections:
        part = _section(section) if section.folded else ""
        if part and size + len(part) > LONGEST:
            left_out.append(section.title)
        elif part:
            parts.append(part)
            size += len(part)
    if left_out:
        parts.append(f"Too long for this page, and in the report: {escaped(', '.join(left_out))}.\n")
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&commat;")
    flat = _SPECIAL.sub(r"\\\1", flat)
    if _LIST.match(flat):
        return _LIST.sub(r"\1\\\2", flat)
    return f"\\{flat}" if flat[:1] in _LEADING else flat


def _head(summary: Summary) -> str:
    meta = f"`{_code(summary.badge)}` {escaped(summary.meta)}"
    lines = [f"# {escaped(summary.name)}", "", meta, "", f"**{escaped(summary.headline)}**", ""]
    return "\n".join([*lines, *(line for fact in summary.facts for line in _fact(fact))])


def _fact(fact: Fact) -> Iterator[str]:
    yield from (f"### {escaped(fact.title)}", "")
    for text in (*fact.texts, *filter(None, [fact.why])):
        yield from (escaped(text), "")
    if fact.tiles:
        yield from _rows(
            ["Metric", "Value", "", ""], [[tile.name, tile.value, *tile.small, "", ""][:4] for tile in fact.tiles]
        )
    yield from (f"- {escaped(text)}" for text in fact.points)
    yield ""


def _section(section: Section) -> str:
    blocks = [line for block in section.blocks for line in _block(block)]
    if not any(blocks):
        return ""
    caption = [escaped(section.caption), ""] if section.caption else []
    if not section.folded:
        return "\n".join([f"## {escaped(section.title)}", "", *caption, *blocks])
    return "\n".join([f"<details><summary>{escaped(section.title)}</summary>", "", *caption, *blocks, "</details>", ""])


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield from _text(block)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Points):
        yield from (f"- {escaped(text)}" for text in block.texts)
        yield ""
    elif isinstance(block, Fold):
        yield from (f"<details><summary>{escaped(block.title)}</summary>", "")
        for inner in block.blocks:
            yield from _block(inner)
        yield from ("</details>", "")
    elif isinstance(block, Columns):
        for title, tables in block.columns:
            yield from (f"### {escaped(title)}", "")
            for table in tables:
                yield from _table(table)


def _text(block: Text) -> Iterator[str]:
    if block.look == "verbatim":
        fence = "`" * (2 + max([1, *(len(run) for run in re.findall("`+", block.text))]))
        yield from (fence, *block.text.splitlines(), fence, "")
    elif block.look == "heading":
        yield from (f"### {escaped(block.text)}", "")
    else:
        words = escaped(block.text)
        yield from (f"**{words}**" if block.look == "bold" else words, "")


def _table(table: Table) -> Iterator[str]:
    if table.lines:
        width = max(len(line.cells) for line in table.lines)
        yield from _rows(
            list(table.headers) or [""] * width, [[_cell(cell) for cell in line.cells] for line in table.lines]
        )


def _cell(cell: Cell) -> str:
    more = ", ".join(filter(None, (cell.small, cell.beside)))
    return f"{cell.text} ({more})" if more else cell.text


def _rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (headers, ["---"] * len(headers), *rows):
        yield f"| {' | '.join(cell if cell == '---' else escaped(cell) for cell in cells)} |"
    yield ""


def _code(text: str) -> str:
    return text.replace("`", "'")

"""A report's page as a reader sees it, and a name that would be more than text if the page let it."""

from __future__ import annotations

import json
from html.parser import HTMLParser

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


class Reader(HTMLParser):
    """Visible text by section heading, tags with attributes, and the charts' JSON."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.sections: dict[str, str] = {"": ""}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._heading = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside == "h2":
            self._heading += data
            self.sections.setdefault(self._heading, "")
        elif inside != "style":
            self.sections[self._heading] = self.sections.get(self._heading, "") + data + " "

    @property
    def charts(self) -> dict[str, dict[str, list[dict[str, object]]]]:
        found: dict[str, dict[str, list[dict[str, object]]]] = json.loads(self.scripts[0])
        return found

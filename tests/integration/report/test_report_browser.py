"""The report in a real browser, with no way out to any network."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import made_up
import made_up_report
import pytest

from edgedeploy.report.page_sections import write_report

pytestmark = [pytest.mark.browser, pytest.mark.beside]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--virtual-time-budget=8000", "--window-size=1280,2400", "--enable-logging=stderr", "--dump-dom"),
)


@dataclass(frozen=True)
class Loaded:
    """The page as it is after its scripts ran, what the console said, and what the page asked of the network."""

    dom: str
    console: list[str]
    requests: set[str]


class Visible(HTMLParser):
    """The texts that a reader sees, the title, and all tags with their attributes."""

    def __init__(self, dom: str) -> None:
        super().__init__(convert_charrefs=True)
        self.title = self.text = ""
        self.tags: list[tuple[str, list[str]]] = []
        self._open = ""
        self.feed(dom)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "title":
            self.title += data
        elif self._open not in ("script", "style"):
            self.text += data


def load(chromium: str, path: Path) -> Loaded:
    """Open the file with every host name unresolvable, so that not even the browser's own traffic leaves."""
    log = path.with_suffix(".net.json")
    argv = [chromium, *FLAGS, f"--user-data-dir={path.with_suffix('.profile')}", f"--log-net-log={log}", path.as_uri()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Loaded(done.stdout, console, page_requests(log))


def page_requests(log: Path) -> set[str]:
    """Network addresses that a page asked for: the browser's own requests have no origin as their initiator."""
    lines = (line for line in log.read_text(encoding="utf-8").splitlines() if '"initiator":' in line)
    events = [json.JSONDecoder().raw_decode(line)[0]["params"] for line in lines]
    return {
        event["url"]
        for event in events
        if event["initiator"] != "not an origin"
        and not event.get("url", "data:").startswith(("data:", "file:", "blob:"))
    }


@pytest.fixture(scope="module")
def loaded(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return load(chromium, write_report(made_up_report.report_data(), path))


def test_both_plots_are_drawn_and_no_script_complains(loaded: Loaded) -> None:
    assert loaded.console == []
    for chart in ("front-chart", "case-chart"):
        drawn = loaded.dom.split(f'id="{chart}"', 1)[1]
        assert re.match(r'[^>]*class="[^"]*js-plotly-plot', drawn)
        assert '<svg class="main-svg"' in drawn[:4000]
    points = re.findall(r'<path class="point[^"]*"', loaded.dom)
    assert len(points) >= 14 + 1 + 40


def test_the_page_asks_the_network_for_nothing(chromium: str, loaded: Loaded, tmp_path: Path) -> None:
    assert loaded.requests == set()
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/seen.png">', encoding="utf-8")
    assert load(chromium, other).requests == {"http://127.0.0.1:9/seen.png"}


@pytest.mark.fault(38)
def test_names_with_html_in_them_stay_text(chromium: str, tmp_path: Path) -> None:
    hostile = made_up.variant("openvino", "int8", 0.75, resolution=HOSTILE)
    items = [made_up.measurement(), made_up.measurement(hostile, dice=0.86, latency_ms=2.0)]
    front = made_up_report.front(items)
    data = made_up_report.report_data(front=front, measurements=items, name=HOSTILE, notes=[HOSTILE], pictures=())
    found = load(chromium, write_report(data, tmp_path / "report.html"))
    assert "<title>owned</title>" not in found.dom
    assert 'src="x"' not in found.dom
    assert found.console == []
    seen = Visible(found.dom)
    assert HOSTILE in seen.title, "the study's name is left out"
    assert seen.text.count(HOSTILE) >= 4, "the notes, the tables and the study's name are left out"
    assert not [tag for tag, attributes in seen.tags if tag == "img" or any(key.startswith("on") for key in attributes)]


def test_a_name_that_is_not_escaped_would_be_seen(chromium: str, tmp_path: Path) -> None:
    """What the test above looks for happens in this browser, where a page lets it."""
    page = tmp_path / "owned.html"
    page.write_text(f"<title>mine</title><p>{HOSTILE}</p>", encoding="utf-8")
    found = load(chromium, page)
    assert "<title>owned</title>" in found.dom and 'src="x"' in found.dom


def test_tables_sort_by_number_when_a_heading_is_clicked(chromium: str, tmp_path: Path) -> None:
    data = made_up_report.report_data()
    path = write_report(data, tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    click = (
        "const head = [...document.querySelectorAll('table.sortable thead button')]"
        ".find(b => b.textContent === 'Latency p50'); head.click();"
    )
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    path.write_text(policy.sub("", page).replace("</body>", f"<script>{click}</script></body>"), encoding="utf-8")
    table = load(chromium, path).dom.split('<table class="sortable">', 1)[1].split("</table>", 1)[0]
    column = 7
    values = []
    for row in re.findall(r"<tr.*?</tr>", table.split("<tbody>", 1)[1], re.S):
        values.append(float(re.findall(r'<td[^>]*data-v="([^"]*)"', row)[column]))
    assert len(values) == 14 and values == sorted(values)
    assert 'aria-sort="ascending"' in table

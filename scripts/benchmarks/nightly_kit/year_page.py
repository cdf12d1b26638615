"""A year of a lab on its trend page: how large the file is, and how long a browser takes to open it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.nightly_kit.asked import Asked
from benchmarks.shared.rows import Row, RowMaker

sys.path.append(str(ROOT / "tests"))  # made_up_night and browser_kit

NIGHTS: Final = 365
ENTRIES: Final = 125
"""On two boards with four metrics each: 1,000 series."""

MOST_MB: Final = 8.0
MOST_S: Final = 3.0
OPENED: Final = 5
"""Times, each in a browser that was started for it: its cache is empty."""

WHAT: Final = f"trend page of {NIGHTS} nights x 1,000 series"


@contextmanager
def _page() -> Iterator[Path]:
    import made_up_night

    from edgedeploy.nightly.results import write_results

    with tempfile.TemporaryDirectory(prefix="edgedeploy-year-") as place:
        *before, last = made_up_night.year(NIGHTS, ENTRIES)
        yield write_results(last, before, Path(place)).trend


def year_page_size(asked: Asked) -> Row:
    """Of the file, with its scripts."""
    with _page() as page:
        size_mb = page.stat().st_size / 1e6
    return Row(f"{WHAT}: size", f"{size_mb:.2f} MB", f"< {MOST_MB:g} MB", size_mb < MOST_MB)


def year_page_opens(asked: Asked) -> Row:
    """From asking for the file until the worst number's chart is drawn and painted."""
    what, bar = f"{WHAT}: opened by headless Chromium", f"< {MOST_S:g} s"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return Row(what, "no chromium here: apt-get install chromium", bar, False)
    with _page() as page:
        times_s = sorted(_opened_s(chromium, page) for _ in range(OPENED))
    found = f"{times_s[OPENED // 2]:.2f} s (median of {OPENED} new browsers, worst {times_s[-1]:.2f} s)"
    return Row(what, found, bar, times_s[OPENED // 2] < MOST_S)


def _opened_s(chromium: str, page: Path) -> float:
    from browser_kit import DESK, browser

    with (
        tempfile.TemporaryDirectory(prefix="edgedeploy-browser-") as place,
        browser(chromium, Path(place) / "p") as reader,
    ):
        reader.screen(*DESK)
        began_s = time.perf_counter()
        reader.open(page)
        reader.run(
            "new Promise(done => { const look = () => document.documentElement.dataset.ready ? done() "
            ": setTimeout(look, 5); look() })"
        )
        reader.settle()
        taken_s = time.perf_counter() - began_s
        drawn = reader.run("document.querySelectorAll('#trend-chart .main-svg').length")
    if not drawn:
        raise RuntimeError("the chart is not drawn")
    return taken_s


ROWS: Final[Sequence[RowMaker]] = (year_page_size, year_page_opens)

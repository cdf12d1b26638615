"""A public contest on real ultrasound: the toolchains' own recipes against one search of ours, scored by one program.

The script trains a U-Net of about 950,000 parameters (grey 192 x 192, masks of nerve and vessel) from the images in --data,
once, and keeps it in --out. Both sides begin with that checkpoint and the same calibration images:

tools: ONNX Runtime, OpenVINO with NNCF, LiteRT, torch-pruning, and Olive and NeuroQuant in environments of their own.
ours:  `edgedeploy search` on the study file of the contest, for --minutes on this machine.

Then every artifact runs in a process with one thread on one core, interleaved with ONNX Runtime float32: CPU time, Dice on
40 selection and 40 confirmation cases, bytes of the files. What is there already is kept, so a contest that was cut off
goes on; what ran while something else used the machine is scored again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import PAGES, parser_of
from benchmarks.contest_kit.checkpoint import Source, shared_images, train_once
from benchmarks.contest_kit.contestants import make_tools
from benchmarks.contest_kit.entries import Entry, Missing, made_s, tools_entries
from benchmarks.contest_kit.ours import MINUTES, STUDY, ours_entries, search, searched
from benchmarks.contest_kit.outcome import VNNI, Outcome, Scored, bars
from benchmarks.contest_kit.page import page
from benchmarks.contest_kit.scoring import BASELINE, Scores, score_all
from benchmarks.shared.sources import REPEATS
from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.files import write_atomic
from edgedeploy.records.board import BoardInfo

EXTRAS: Final = ("study", "litert")

PAGE: Final = PAGES / "contest.md"


def main(argv: Sequence[str]) -> int:
    parser = parser_of("contest", __doc__)
    text = "the data set's folder, with images/, masks/ and test/ (EDGEDEPLOY_SHARED's)"
    parser.add_argument("--data", type=Path, default=shared_images(), help=text)
    parser.add_argument("--out", type=Path, default=Path("studies/contest"), help="(studies/contest)")
    parser.add_argument("--side", choices=("tools", "ours"), help="make and score one side alone")
    parser.add_argument("--score-only", action="store_true", help="make nothing, score what is there")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of our search ({MINUTES:g})")
    parser.add_argument("--study", type=Path, default=STUDY, help="our study file, in place of the contest's own")
    text = "runs of an artifact while the conditions do not hold"
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"{text} ({REPEATS})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    text = "write the page, to docs/reference/contest.md unless FILE says where"
    parser.add_argument("--write", metavar="FILE", nargs="?", type=Path, const=PAGE, help=text)
    given = parser.parse_args(argv)
    try:
        if given.data is None:
            raise SpecError("--data", "it is missing", "Name the folder of usgra-seg that holds images/ and masks/")
        source = Source(given.data.resolve(), given.out.resolve())
        train_once(source)
        if not given.score_only:
            _make(source, given.side, given.study, given.minutes)
        outcome, missing, board = _score(source, given.side, given.repeats)
    except EdgeDeployError as exc:
        parser.exit(exc.exit_code, f"{exc}\n")
    did = searched(source)
    found = bars(outcome, did)
    text = page(source, outcome, missing, made_s(source.folder / "tools"), did, found, board)
    sys.stdout.write(text)
    if given.write:
        write_atomic(given.write, text.encode())
    return int(given.check and not all(bar.holds for bar in found))


def _make(source: Source, side: str | None, study: Path, minutes: float) -> None:
    if side != "ours":
        make_tools(source)
    if side != "tools":
        search(source, study, minutes)


def _score(source: Source, side: str | None, repeats: int) -> tuple[Outcome, list[Missing], BoardInfo]:
    """Score the sides that were asked for; what was scored before counts too."""
    theirs, missing = tools_entries(source.folder / "tools")
    ours = ours_entries(source)
    baseline = next((entry for entry in theirs if entry.name == BASELINE), None)
    if baseline is None:
        raise SpecError("the contest's baseline", f"{BASELINE} is not made yet", "Run --side tools first")
    scores = Scores(source.folder)
    wanted = [*(theirs if side != "ours" else [baseline]), *(ours if side != "tools" else [])]
    board = score_all(source, wanted, baseline, scores, repeats)
    base = scores.of(baseline)
    if base is None:
        raise SpecError("the contest's baseline", "it could not be scored", "See what was said of it above")
    return Outcome(base, _scored([*theirs, *ours], scores), any(name in board.isa for name in VNNI)), missing, board


def _scored(entries: Sequence[Entry], scores: Scores) -> list[Scored]:
    pairs = [(entry, scores.of(entry)) for entry in entries]
    return [Scored(entry, score) for entry, score in pairs if score is not None]

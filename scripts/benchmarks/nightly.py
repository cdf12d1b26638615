"""Whether the nightly gate wakes somebody for a real regression alone: the table of its bars.

Every row is a function in a module of `nightly_kit`. Simulations judge recorded A/A sessions, and made-up ones, by the
product's own rule, with the seed given; other rows measure on this host. --record N adds N nights of A/A sessions to the
record (`nightly_kit/sessions.json`, or --to PATH) and does nothing else. With --check exit 1 when a bar does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import parser_of
from benchmarks.nightly_kit.noises import RECORD
from benchmarks.nightly_kit.rows import PARTS, Asked
from benchmarks.shared.host import circumstances
from benchmarks.shared.rows import made, makers_of, table

EXTRAS: Final = ("study", "lab", "dev")
APART_S: Final = 30.0


def main(argv: Sequence[str]) -> int:
    parser = parser_of("nightly", __doc__)
    known = makers_of("nightly_kit", PARTS)
    parser.add_argument("--only", nargs="+", choices=list(known), help="these rows alone", metavar="ROW")
    parser.add_argument("--labs", type=int, default=Asked.labs, help=f"of each simulation ({Asked.labs})")
    parser.add_argument("--seed", type=int, default=Asked.seed, help=f"of all of them ({Asked.seed})")
    parser.add_argument("--nights", type=int, default=Asked.nights, help=f"real A/A nights ({Asked.nights})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    parser.add_argument("--record", type=int, metavar="N", help="measure N more nights for the record")
    parser.add_argument("--to", type=Path, default=RECORD, help="the record (nightly_kit/sessions.json)")
    given = parser.parse_args(argv)
    if given.labs < 1 or given.nights < 1:
        parser.error("--labs and --nights are at least 1")
    if given.record is not None:
        from benchmarks.nightly_kit.recorder import record

        record(given.to, given.record, APART_S)
        return 0
    rows = made(known, given.only, Asked(given.labs, given.seed, given.nights))
    sys.stdout.write(f"{circumstances()}\n\n{table('nightly gate', rows)}")
    return int(given.check and not all(row.holds for row in rows))

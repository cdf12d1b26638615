"""Whether the nightly gate wakes somebody for a real regression alone: the table of its bars.

Every row is a function in a module of `nightly_kit`. Simulations judge recorded A/A sessions, and made-up ones, by the
product's own rule, with the seed given; other rows measure on this host. --record N adds N nights of A/A sessions to the
record (`nightly_kit/sessions.json`, or --to PATH) and does nothing else. With --check exit 1 when a bar does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.nightly_kit.asked import PARTS, Asked
from benchmarks.nightly_kit.noises import RECORD
from benchmarks.shared.rows import Table

EXTRAS: Final = ("study", "lab", "dev")
APART_S: Final = 30.0
TABLE: Final = Table("nightly", __doc__, "nightly gate", "nightly_kit", PARTS, Asked)


def main(argv: Sequence[str]) -> int:
    parser = TABLE.parser()
    parser.add_argument("--record", type=int, metavar="N", help="measure N more nights for the record")
    parser.add_argument("--to", type=Path, default=RECORD, help="the record (nightly_kit/sessions.json)")
    given = parser.parse_args(argv)
    if given.record is not None:
        from benchmarks.nightly_kit.recorder import record

        record(given.to, given.record, APART_S)
        return 0
    return TABLE.run(parser, given)

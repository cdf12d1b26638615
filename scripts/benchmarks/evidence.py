"""Whether the evidence holds: how often the rules of the pick are wrong, and what else a handover claims.

Every row is a function in a module of `evidence_kit`, listed in its ROWS. Simulations run the product's own code on made-up
differences, with the seed given. With --check exit 1 when a bar does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import parser_of
from benchmarks.evidence_kit.rows import Asked
from benchmarks.shared.host import circumstances
from benchmarks.shared.rows import made, makers_of, table

EXTRAS: Final = ("study",)


def main(argv: Sequence[str]) -> int:
    parser = parser_of("evidence", __doc__)
    known = makers_of("evidence_kit")
    parser.add_argument("--only", nargs="+", choices=sorted(known), help="these rows alone", metavar="ROW")
    parser.add_argument("--repeats", type=int, default=Asked.repeats, help=f"of each simulation ({Asked.repeats})")
    parser.add_argument("--seed", type=int, default=Asked.seed, help=f"of all of them ({Asked.seed})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    given = parser.parse_args(argv)
    if given.repeats < 1:
        parser.error("--repeats is at least 1")
    rows = made(known, given.only, Asked(given.repeats, given.seed))
    sys.stdout.write(f"{circumstances()}\n\n{table('evidence', rows)}")
    return int(given.check and not all(row.holds for row in rows))

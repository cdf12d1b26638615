"""The clinic: sites with other boards, codecs before the model, audits. The table of bars, each beside its baseline.

Every row is a function in a module of `clinic_kit`, listed in its ROWS. Networks are trained and data is made here, with the
seed given; with EDGEDEPLOY_SHARED naming the folder of real images, rows that can use them do, and say so. With --check
exit 1 when a bar does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import parser_of
from benchmarks.clinic_kit.asked import Asked
from benchmarks.shared.host import circumstances
from benchmarks.shared.rows import made, makers_of, table

EXTRAS: Final = ("study", "federated", "codecs")


def main(argv: Sequence[str]) -> int:
    parser = parser_of("clinic", __doc__)
    known = makers_of("clinic_kit")
    parser.add_argument("--only", nargs="+", choices=sorted(known), help="these rows alone", metavar="ROW")
    parser.add_argument("--seed", type=int, default=Asked.seed, help=f"of all of them ({Asked.seed})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    given = parser.parse_args(argv)
    rows = made(known, given.only, Asked(given.seed))
    sys.stdout.write(f"{circumstances()}\n\n{table('the clinic', rows)}")
    return int(given.check and not all(row.holds for row in rows))

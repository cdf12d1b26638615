"""Loads a bundle on a board, by the runtime that the pushed agent has: what it will do in a product on that machine."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy.errors import SpecError
from edgedeploy.files import disk_told
from edgedeploy.interfaces.board import LoadsBundles
from edgedeploy.records.board import LoadedBundle
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study.bundle.pack import as_zip
from edgedeploy.study.bundle.refused import refusals_told
from edgedeploy.study.preflight import open_and_probe


def load_on_board(bundle: Path, trust: Path | None, table: BoardTable) -> LoadedBundle:
    """Bring the bundle to the board, hold the board, and load it there: signature, compatibility, golden vectors.

    Raises ``BundleError`` when it is refused, here or there, ``BoardError``, and ``SpecError`` for a kind of board that
    has no runtime for bundles.
    """
    with refusals_told(f"read {bundle}"):
        data = as_zip(read_tree(bundle))
    board, _ = open_and_probe(table, ())
    with TemporaryDirectory(prefix="edgedeploy-") as place, board.session() as session:
        archive = Path(place) / "bundle.zip"
        with disk_told(archive):
            archive.write_bytes(data)
        if not isinstance(session, LoadsBundles):
            raise SpecError(f"--board {table.name}", "this kind of board loads no bundles", "Copy it there and run it")
        return session.load_bundle(archive, trust)

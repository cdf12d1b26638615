"""A site whose coordinator takes back what it said, and a coordinator whose own marker is not what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from federated_said import ASKED, site_file, sites_file, write_weights

from edgedeploy.errors import SpecError
from edgedeploy.federated.coordinator import Coordinator
from edgedeploy.federated.messages import Request
from edgedeploy.federated.site import Site
from edgedeploy.federated.specs import load_site, load_sites

SITE = site_file('spool = "spool"')
SITES = sites_file()


class Fickle:
    """Its end of a release is gone when it is looked for again."""

    where = "a test"

    def __init__(self) -> None:
        self.asked = 0

    def open(self) -> tuple[int, ...]:
        self.asked += 1
        return (1,) if self.asked == 1 else ()

    def request(self, number: int) -> bytes:
        return Request(**{**ASKED, "kind": "end", "outcome": "refused"}).as_bytes()


def test_an_end_that_is_gone_again_is_an_end(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    told: list[str] = []
    site = Site(*load_site(tmp_path / "site.toml"), Fickle(), told.append)  # type: ignore[arg-type]
    assert site.serve(once=True) == "refused" and "refused" in told[0]


@pytest.mark.parametrize("marker", ["[]", "7", '"release"', "{}", "{"])
def test_a_folder_whose_marker_is_another_things_is_told(marker: str, tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(SITES)
    write_weights(tmp_path / "w.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "federate.json").write_text(marker)
    coordinator = Coordinator(*load_sites(tmp_path / "sites.toml"), tmp_path / "out", print)
    with pytest.raises(SpecError, match=r"another release|cannot be read"):
        coordinator.run(resume=True, once=True)


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.pt")
    (tmp_path / "site.toml").write_text(SITE.replace('spool = "spool"', 'spool = "spool"\nwork = "w.pt"'))
    site = Site(*load_site(tmp_path / "site.toml"), Fickle(), print)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"site\.work.*File exists"):
        site.serve(once=True)
    (tmp_path / "sites.toml").write_text(SITES + 'spool = "w.pt"\n')
    coordinator = Coordinator(*load_sites(tmp_path / "sites.toml"), tmp_path / "out", print)
    with pytest.raises(SpecError, match=r"site north: spool: .*Not a directory"):
        coordinator.run(resume=False, once=True)

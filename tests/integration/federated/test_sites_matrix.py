"""Sites with real studies of their own: one cell fails, is found although the mean hides it, is mended and confirmed; the
wire between site and coordinator is read, a site is killed at its door and in its study."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import sites_kit
import warm_cli

from edgedeploy.boards.emulated.board import kept_port
from edgedeploy.cli.app import EXIT_GOAL_NOT_MET
from edgedeploy.errors import DataError, SpecError, Unreachable
from edgedeploy.federated.connection import mailbox_of
from edgedeploy.federated.coordinator import Coordinator
from edgedeploy.federated.mailbox import Spool
from edgedeploy.federated.page import sentences, write_pages
from edgedeploy.federated.release import Release
from edgedeploy.federated.served import serving_of
from edgedeploy.federated.site import Site
from edgedeploy.federated.specs import load_site, load_sites

pytestmark = [pytest.mark.beside, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    sites_kit.write_checkpoint(folder / "global.pt")
    return folder


def coordinator(path: Path, out: Path, told: list[str] | None = None) -> Coordinator:
    spec, source = load_sites(path)
    return Coordinator(spec, source, out, (told if told is not None else []).append)


def site(path: Path, told: list[str] | None = None) -> Site:
    spec, source = load_site(path)
    return Site(spec, source, mailbox_of(spec, source), (told if told is not None else []).append)


class Cut(Exception):
    """The site's process ends here."""


def test_one_cell_fails_is_mended_and_confirmed_and_no_image_is_on_the_wire(place: Path) -> None:
    folder = place / "net"
    folder.mkdir()
    (folder / "global.pt").hardlink_to(place / "global.pt")
    with kept_port() as port, sites_kit.recorded(port) as wire:
        way = f'coordinator = "http://127.0.0.1:{wire.port}"\ntoken_file = "token"'
        paths = {}
        for number, (name, tone) in enumerate({"north": 0.2, "south": 0.65}.items()):
            paths[name] = sites_kit.write_site(folder / name, tone, number, dark=name == "south", way=way)
            sites_kit.write_tokens(folder, name)
        listed = sites_kit.write_sites(folder, list(paths), f'listen = "127.0.0.1:{port}"')
        told: list[str] = []
        asking = coordinator(listed, folder / "out", told)
        found: list[Release] = []

        def ask() -> None:
            found.append(asking.run(resume=False, once=False, serving=serving_of(asking), poll_s=0.05))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        give_up_s = time.monotonic() + 1500
        while thread.is_alive() and time.monotonic() < give_up_s:  # a site connects when it has time to
            for path in paths.values():
                with suppress(Unreachable):  # before the server is up, and after the end
                    site(path).serve(once=True)
            thread.join(0.1)
    (release,) = found
    assert release.outcome == "released"
    assert release.chosen == {"north": 0, "south": 1} and release.mended == {"south": (0,)}
    states = {state.name: state for state in asking.states()}
    first = states["south"].answers[0]
    assert first.pick is None and first.cells[0].word == "inferior"
    assert states["north"].confirmed is not None and states["north"].confirmed.pick == 0
    # -- the wire
    assert b"PUT /v1/south/answers/003" in wire.up
    checkpoint = (folder / "global.pt").read_bytes()
    assert checkpoint[:4096] in wire.down, "the recorder sees both ways"
    for name in paths:
        images = folder / name / "images"
        assert sites_kit.shared_windows(bytes(wire.up), images) == set()
        planted = (images / "selection-000.image.png").read_bytes()[60:80]
        assert sites_kit.shared_windows(bytes(wire.up) + planted, images), "an image on the wire would be found"
    answers = [data for state in states.values() for data in (answer.as_bytes() for answer in state.answers)]
    heads = bytes(wire.up)
    for data in answers:
        assert heads.count(data) == 1
        heads = heads.replace(data, b"")
    assert all(
        line.split(b":")[0] in HEADERS or line.split(b" ")[0] in (b"GET", b"PUT") for line in heads.split(b"\r\n")
    )
    # -- what each site wrote down is what came in
    logged = [line for name in paths for line in site(paths[name]).door.left()]
    received = [json.loads(line) for line in (folder / "out" / "received.jsonl").read_text().splitlines()]
    assert sorted(line["sha256"] for line in logged) == sorted(line["sha256"] for line in received)
    assert sorted(line["sha256"] for line in logged) == sorted(hashlib.sha256(data).hexdigest() for data in answers)
    assert sum(line["bytes"] for line in logged) == sum(map(len, answers)) < 8 * 1024
    # -- the page
    said = sentences(list(states.values()), asking.candidates, release)
    assert any("south was mended" in line for line in said) and said[-1].startswith("Released: all 2 sites")
    write_pages(folder / "out", "lesions", {}, list(states.values()), asking.candidates, release)
    assert json.loads((folder / "out" / "release.json").read_text())["chosen"] == {"north": 0, "south": 1}
    page = (folder / "out" / "release.md").read_text()
    assert states["south"].chosen is not None and str(states["south"].chosen.artifact) in page


HEADERS = (b"", b"Host", b"Accept-Encoding", b"Authorization", b"Content-Length")


def test_a_site_that_dies_goes_on_and_one_with_few_cases_keeps_the_release(place: Path) -> None:
    folder = place / "carried"
    folder.mkdir()
    (folder / "global.pt").hardlink_to(place / "global.pt")
    path = sites_kit.write_site(
        folder / "west", 0.2, 7, dark=False, way='spool = "../out/spool/west"', cases=sites_kit.FEW
    )
    listed = sites_kit.write_sites(folder, ["west"])
    asking = coordinator(listed, folder / "out")
    assert asking.run(resume=False, once=True).outcome == "undecided"
    assert asking.waiting_for() == ["west"]
    with pytest.raises(SpecError, match="holds this release already"):
        asking.run(resume=False, once=True)

    def dies(event: object) -> None:
        if getattr(event, "kind", "") == "trial":
            raise Cut

    first = site(path)
    with pytest.raises(Cut):
        Site(first.spec, first.source, first.mailbox, print, dies).serve(once=True)
    assert first.door.left() == []
    kept = list((first.work / "releases").glob("*/study/measurements/*.json"))
    assert len(kept) == 1
    before = kept[0].read_bytes()

    class Broken(Spool):
        def answer(self, number: int, data: bytes) -> None:
            raise Unreachable("the carrier", "is away")

    with pytest.raises(Unreachable):
        Site(first.spec, first.source, Broken(asking.spool(asking.spec.site[0]).folder), print).serve(once=True)
    assert first.serve(once=True) == ""
    assert kept[0].read_bytes() == before, "what was measured before the kill is not measured again"
    left = first.door.left()
    assert [line["again"] for line in left] == [False, True] and len({line["sha256"] for line in left}) == 1

    assert asking.run(resume=True, once=True).outcome == "undecided"  # the next candidate is asked for
    first.serve(once=True)
    release = asking.run(resume=True, once=True)
    assert release.outcome == "refused"
    assert "too few cases to bound a loss" in release.failing["west"]
    assert not list((first.work / "releases").glob("*/study/*opening*")), "cases are kept for later"
    assert first.serve(once=False, poll_s=0.01) == "refused"
    argv = [*warm_cli.command(), "federate", str(listed), "--out", str(folder / "out"), "--resume", "--once"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == EXIT_GOAL_NOT_MET, done.stderr
    assert "Refused: 1 of 1 sites fail." in done.stdout
    # -- an answer that somebody changed is told
    answer = asking.spool(asking.spec.site[0]).folder / "from-site" / "001.json"
    data = json.loads(answer.read_bytes())
    answer.write_text(json.dumps({**data, "request_sha256": "0" * 64}))
    with pytest.raises(DataError, match="another request"):
        asking.states()
    answer.write_text(json.dumps({**data, "pixels": [1, 2, 3]}))
    with pytest.raises(DataError, match="pixels"):
        asking.states()

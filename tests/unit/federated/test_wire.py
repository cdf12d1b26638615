"""How messages travel: folders, and connections that nobody else can use."""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federated_said import ASKED, SAID, site_file, sites_file, write_weights

from edgedeploy.errors import DataError, LoginRefused, SpecError, Unreachable
from edgedeploy.federated import served as served_module
from edgedeploy.federated.connection import Connection, mailbox_of
from edgedeploy.federated.coordinator import Coordinator
from edgedeploy.federated.mailbox import Spool
from edgedeploy.federated.messages import Answer, Request, read_message
from edgedeploy.federated.release import SiteState
from edgedeploy.federated.served import Room, served, serving_of
from edgedeploy.federated.specs import load_site, load_sites, margin_of
from edgedeploy.federated.tokens import token_in

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture
def rooms(tmp_path: Path) -> dict[str, Room]:
    def check(number: int, data: bytes) -> Answer:
        return read_message(Answer, data, "an answer", 1 << 20)

    return {name: Room(Spool(tmp_path / name), TOKEN + name, check) for name in ("north", "south")}


@pytest.fixture
def port(rooms: dict[str, Room]) -> Iterator[int]:
    with served(rooms, "127.0.0.1", 0, None) as address:
        yield int(address.rpartition(":")[2])


def test_a_request_a_checkpoint_and_an_answer_go_over_a_connection(
    rooms: dict[str, Room], port: int, tmp_path: Path
) -> None:
    spool, site = rooms["north"].spool, Connection("north", "127.0.0.1", port, TOKEN + "north")
    weights = tmp_path / "w.pt"
    weights.write_bytes(bytes(range(256)) * 9000)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    spool.put_checkpoint(weights, sha256)
    data = Request(**{**ASKED, "checkpoint_sha256": sha256}).as_bytes()
    spool.ask(1, data)
    spool.ask(1, data)  # once more is nothing new
    with pytest.raises(FileExistsError):
        spool.ask(1, data + b" ")
    assert site.open() == (1,) and site.request(1) == data and not rooms["south"].fetched
    site.checkpoint(sha256, weights.stat().st_size, tmp_path / "got.pt")
    assert (tmp_path / "got.pt").read_bytes() == weights.read_bytes()
    answer = Answer(**SAID).as_bytes()
    site.answer(1, answer)
    assert spool.answer_bytes(1, 1 << 16) == answer and spool.answered() == (1,)
    assert rooms["north"].up_to_date() and site.open() == (), "what was answered is not sent again"


def test_a_checkpoint_that_is_not_what_was_said_is_not_taken(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    spool.put_checkpoint(weights, sha256)
    spool.checkpoint_path(sha256).write_bytes(b"others!")
    with pytest.raises(DataError, match="another file"):
        spool.checkpoint(sha256, 7, tmp_path / "got.pt")
    assert not (tmp_path / "got.pt").exists()
    with pytest.raises(DataError, match="Carry the whole folder"):
        spool.checkpoint("0" * 64, 7, tmp_path / "got.pt")


@pytest.mark.parametrize("token", ["", TOKEN, TOKEN + "south", "x" * 200])
def test_a_site_reaches_its_own_spool_only(rooms: dict[str, Room], port: int, token: str) -> None:
    rooms["north"].spool.ask(1, Request(**ASKED).as_bytes())
    with pytest.raises(LoginRefused):
        Connection("north", "127.0.0.1", port, token).open()
    with pytest.raises(LoginRefused):
        Connection("nobody", "127.0.0.1", port, token).open()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/north/requests/../../../etc/passwd", b"", 403),
        ("GET", "/v1/north/checkpoints/" + "0" * 64, b"", 404),
        ("GET", "/v1/north/requests/2", b"", 404),
        ("PUT", "/v1/north/answers/001", b"\x89PNG image", 400),
        ("PUT", "/v1/north/answers/002", b"{}", 404),
        ("PUT", "/v1/north/answers/001", b"x" * (1 << 26), 413),
    ],
)
def test_what_is_no_message_is_refused(
    rooms: dict[str, Room], port: int, method: str, path: str, body: bytes, status: int
) -> None:
    rooms["north"].spool.ask(1, Request(**ASKED).as_bytes())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}north"}
    if status == 413:
        connection.putrequest(method, path)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders()
    else:
        connection.request(method, path, body, headers)
    assert connection.getresponse().status == status
    assert rooms["north"].spool.answered() == ()
    connection.close()


SITE = site_file('coordinator = "{url}"\ntoken_file = "token"')
SITES = sites_file('listen = "{listen}"\n', 'token_file = "token"\n')


def test_plain_http_stays_on_this_host_and_a_token_with_its_owner(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    for name, text in (
        ("site.toml", SITE.format(url="http://10.0.0.1:1")),
        ("far.toml", SITES.format(listen="0.0.0.0:1")),
    ):
        (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match="https"):
        mailbox_of(*load_site(tmp_path / "site.toml"))
    spec, source = load_sites(tmp_path / "far.toml")
    with pytest.raises(SpecError, match="certificate"):
        serving_of(Coordinator(spec, source, tmp_path / "out", print))
    with pytest.raises(SpecError, match="chmod 600"):
        token_in(token, "token")
    token.chmod(0o600)
    assert token_in(token, "token") == TOKEN
    token.write_text("short")
    with pytest.raises(SpecError, match="no token"):
        token_in(token, "token")
    with pytest.raises(Unreachable):
        Connection("north", "127.0.0.1", 1, TOKEN).open()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("margin = 0.02", "lost_case = 0.1", "margin must say"),
        ('kind = "synthetic-ultrasound"', 'kind = "onnx"\nmodel = "m.onnx"', "built in torch"),
        ('token_file = "token"', "", "token_file"),
        ('token_file = "token"', 'token_file = "token"\nspool = "x"', "exactly one"),
        ('name = "north"', 'name = "../north"', "pattern"),
        ('name = "cart"', 'name = "Wagen für <b>OP</b>"', "letters, digits"),
        ("margin = 0.02", "margin = inf", "margin"),
        ("margin = 0.02", "margin = true", "margin"),
        ("margin = 0.02", "margin = { dice = true }", "margin"),
    ],
)
def test_a_site_file_that_says_too_little_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(url="https://a:1").replace(old, new, 1))
    with pytest.raises(SpecError, match=said):
        load_site(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('precision = "int8"', 'precision = "float32"', "baseline"),
        ('precision = "int8"', 'precision = "int8"\nwidth = 0.5', "width"),
        (
            "[[site]]",
            '[[candidate]]\ntarget = "onnxruntime"\nprecision = "int8"\nthreads = 1\n[[site]]',
            "same parameters",
        ),
        ("[[site]]", '[[site]]\nname = "NORTH"\nmargin = 1\n[[site]]', "twice"),
        ("[[site]]", '[[site]]\nname = "b"\nmargin = 1\ntoken_file = "./token"\n[[site]]', "one token_file"),
        ("[[site]]", '[[site]]\nname = "b"\nmargin = 1\nspool = "usb/"\n[[site]]\nspool = "usb"', "one spool"),
        ("margin = 0.02", "margin = inf", "finite"),
        ("margin = 0.02", "margin = nan", "margin"),
        ("margin = 0.02", "margin = -0.1", "margin"),
        ("margin = 0.02", "margin = true", "margin"),
        ('target = "onnxruntime"', "target = 5", "as texts"),
        ('target = "onnxruntime"', 'target = "a/b"', "letters, digits"),
        ('precision = "int8"', 'precision = "int7"', "Did you mean 'int8'"),
        ('precision = "int8"', 'precision = "int8"\nweight_bits = 9', "from 7 to 8"),
        ('precision = "int8"', 'precision = "int8"\nthreads = 100000', "from 1 to 256"),
    ],
)
def test_a_sites_file_with_a_mistake_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(SITES.format(listen="127.0.0.1:1").replace(old, new, 1))
    with pytest.raises(SpecError, match=said):
        load_sites(path)


def test_a_margin_in_words_is_no_less_than_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(SITES.format(listen="127.0.0.1:1").replace("margin = 0.02", 'margin = "-0.02"'))
    with pytest.raises(SpecError, match="0 or more"):
        margin_of(load_sites(path)[0].site[0], "1")


def test_an_answer_is_taken_once(rooms: dict[str, Room], port: int) -> None:
    """Else a site could turn a refusal into a release, days later."""
    rooms["north"].spool.ask(1, Request(**ASKED).as_bytes())
    site, first = Connection("north", "127.0.0.1", port, TOKEN + "north"), Answer(**SAID).as_bytes()
    site.answer(1, first)
    site.answer(1, first)  # sent again by a site that was killed
    with pytest.raises(DataError, match="another answer is there"):
        site.answer(1, Answer(**{**SAID, "pick": 0}).as_bytes())
    assert rooms["north"].spool.answer_bytes(1, 1 << 16) == first


def test_a_body_that_is_too_large_is_not_taken_for_the_next_request(rooms: dict[str, Room], port: int) -> None:
    rooms["north"].spool.ask(1, Request(**ASKED).as_bytes())
    head = f"HTTP/1.1\r\nAuthorization: Bearer {TOKEN}north\r\n"
    inner = f"GET /v1/north/requests/001 {head}\r\n"
    for length in ("99999999", "²", "-1", "1e3", "9" * 5000):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            said = f"PUT /v1/north/answers/001 {head}Content-Length: {length}\r\n\r\n{inner}"
            plain.sendall(said.encode("latin-1"))
            assert b"".join(iter(lambda: plain.recv(1 << 16), b"")).count(b"HTTP/1.1 413") == 1
    assert not rooms["north"].fetched


def test_who_says_little_and_slowly_is_ended(rooms: dict[str, Room], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "TIMEOUT_S", 1.5)
    with served(rooms, "127.0.0.1", 0, None) as address:
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow, pytest.raises(OSError):
            slow.sendall(b"GET /v1/north/requests HTTP/1.1\r\n")
            give_up_s = time.monotonic() + 60
            while time.monotonic() < give_up_s:  # a letter now and then keeps any wait for the next one short
                slow.sendall(b"X")
                time.sleep(0.2)
        monkeypatch.setattr(served_module, "TIMEOUT_S", 60.0)
        assert Connection("north", "127.0.0.1", port, TOKEN + "north").open() == ()


def test_no_more_connections_than_are_held_at_once(rooms: dict[str, Room], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "MOST_CONNECTIONS", 2)
    with served(rooms, "127.0.0.1", 0, None) as address:
        where = ("127.0.0.1", int(address.rpartition(":")[2]))
        connect = socket.create_connection
        with connect(where), connect(where), connect(where, timeout=60) as third:
            assert third.recv(1) == b""
        give_up_s, site = time.monotonic() + 60, Connection("north", *where, TOKEN + "north")
        while time.monotonic() < give_up_s:
            try:
                assert site.open() == ()
                break
            except Unreachable:
                time.sleep(0.05)
        else:
            pytest.fail("the places of those that went are not free again")


@pytest.mark.parametrize("said", [b'{"numbers": [1e999]}', b'{"numbers": "12"}', b"[]", b'{"numbers": [true]}'])
def test_a_coordinator_that_says_nonsense_is_one_error(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Connection("north", "127.0.0.1", 1, TOKEN)
    monkeypatch.setattr(Connection, "_get", lambda self, name, most: said)
    with pytest.raises(DataError, match="no list of numbers"):
        site.open()


def test_two_sites_with_one_token_are_told(tmp_path: Path) -> None:
    for name in ("token", "other"):
        (tmp_path / name).write_text(TOKEN)
        (tmp_path / name).chmod(0o600)
    more = '[[site]]\nname = "south"\nmargin = 0.02\ntoken_file = "other"\n'
    (tmp_path / "sites.toml").write_text(SITES.format(listen="127.0.0.1:0") + more)
    with pytest.raises(SpecError, match="site north has the same token"):
        serving_of(Coordinator(*load_sites(tmp_path / "sites.toml"), tmp_path / "out", print))


def test_an_answer_over_a_slow_link_has_the_time_that_its_size_takes(
    rooms: dict[str, Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = served_module._Server.listens_to

    def listens_to(server: Any, request: socket.socket, more_bytes: int = 0) -> None:
        usual(server, request, more_bytes)
        request.settimeout(60.0)  # on a busy machine whoever sends is late for other reasons
        server._late_s[request] += 0.0 if more_bytes else 60.0

    monkeypatch.setattr(served_module._Server, "listens_to", listens_to)
    monkeypatch.setattr(served_module, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(served_module, "LEAST_BYTES_A_SECOND", 5)
    rooms["north"].spool.ask(1, Request(**ASKED).as_bytes())
    data = Answer(**SAID).as_bytes()
    head = (
        f"PUT /v1/north/answers/001 HTTP/1.1\r\nAuthorization: Bearer {TOKEN}north\r\nContent-Length: {len(data)}\r\n"
    )
    with served(rooms, "127.0.0.1", 0, None) as address:
        where = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(where, timeout=60) as slow:
            slow.sendall(head.encode() + b"\r\n")
            begun = time.monotonic()
            for place, byte in enumerate(data):
                slow.sendall(bytes([byte]))
                if place % 20 == 0 and time.monotonic() < begun + 4:
                    time.sleep(0.4)
            assert time.monotonic() > begun + 3, "longer than what is without a size"
            assert b" 201 " in slow.recv(1 << 12)


def test_an_answer_that_comes_while_the_coordinator_looks_is_not_asked_for_again(tmp_path: Path) -> None:
    text = SITES.replace('listen = "{listen}"\n', "").replace('token_file = "token"', 'spool = "north"')
    (tmp_path / "sites.toml").write_text(text)
    write_weights(tmp_path / "w.pt")

    class Late(Coordinator):
        def states(self) -> list[SiteState]:
            found = super().states()
            spool = Spool(tmp_path / "north")
            for number in spool.open():
                request = spool.request(number)
                said = {**SAID, "number": number, "release": self.release}
                spool.answer(
                    number, Answer(**{**said, "request_sha256": hashlib.sha256(request).hexdigest()}).as_bytes()
                )
            return found

    late = Late(*load_sites(tmp_path / "sites.toml"), tmp_path / "out", lambda line: None)
    release = late.run(resume=False, once=False, poll_s=0.001)
    assert release.outcome == "refused"
    requests = [read_message(Request, late.spool(late.spec.site[0]).request(n), "r", 1 << 16) for n in (1, 2)]
    assert [request.kind for request in requests] == ["measure", "end"]

"""The coordinator's end of connections: it opens each site's spool to the site that has its token, and to nobody else.

GET /v1/SITE/requests            numbers without an answer         GET /v1/SITE/checkpoints/SHA256
GET /v1/SITE/requests/003        a request                         PUT /v1/SITE/answers/003
"""

from __future__ import annotations

import hmac
import json
import re
import shutil
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.federated.coordinator import MOST_ANSWER_BYTES, Coordinator, Serving, Told, nobody_connects
from edgedeploy.federated.mailbox import Spool
from edgedeploy.federated.tokens import is_loopback, token_in

_PATH: Final = re.compile(r"/v1/([A-Za-z0-9._-]{1,40})/(requests|checkpoints|answers)(?:/([0-9a-f]{1,64}))?")
TIMEOUT_S: Final = 60.0
LEAST_BYTES_A_SECOND: Final = 16_000
"""Of an answer: a slow link has so much more time for it."""
MOST_CONNECTIONS: Final = 512
"""At once; more are closed unheard."""
_WORD: Final = "Bearer "


@dataclass(frozen=True)
class Room:
    """What one site may reach, and the requests that it has fetched."""

    spool: Spool
    token: str = field(repr=False)
    check: Callable[[int, bytes], object]
    """Raises an ``EdgeDeployError`` for bytes that are no answer to the request of that number."""
    fetched: set[int] = field(default_factory=set)

    def up_to_date(self) -> bool:
        return set(self.spool.numbers()) <= self.fetched | set(self.spool.answered())


def serving_of(coordinator: Coordinator) -> Serving:
    """Listens where the sites file says so. Raises ``SpecError`` for an address beyond this host without a certificate."""
    listen = coordinator.spec.federate.listen
    if listen is None:
        return nobody_connects
    host, _, port = listen.rpartition(":")
    certificate = coordinator.spec.federate.certificate
    if certificate is None and not is_loopback(host):
        found = f"{listen} can be reached from other hosts, and without a certificate anybody on the way reads along"
        raise coordinator.source.error("federate.listen", found, "Add `certificate`, or listen on 127.0.0.1")
    tokens = {
        entry.name: token_in(coordinator.base / entry.token_file, f"site {entry.name}: token_file")
        for entry in coordinator.spec.site
        if entry.token_file is not None
    }
    for place, (name, token) in enumerate(tokens.items()):
        other = next((earlier for earlier in [*tokens][:place] if tokens[earlier] == token), None)
        if other is not None:
            remedy = "Make a token for each: who has one could answer for the other"
            raise SpecError(f"site {name}: token_file", f"site {other} has the same token", remedy)
    context = None if certificate is None else _context(coordinator.base / certificate)
    entries = {entry.name: entry for entry in coordinator.spec.site}

    @contextmanager
    def serving(spools: Mapping[str, Spool]) -> Iterator[Told]:
        checks = {name: partial(coordinator.checked, entries[name]) for name in tokens}
        rooms = {name: Room(spools[name], token, checks[name]) for name, token in tokens.items()}
        with served(rooms, host.strip("[]"), int(port), context) as address:
            coordinator.tell(f"sites connect to {'https' if context else 'http'}://{address}")
            yield lambda: all(room.up_to_date() for room in rooms.values())

    return serving


def _context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if path.stat().st_mode & 0o007:
            raise SpecError("federate.certificate", f"everybody can read the key in {path}", f"chmod 640 {path}")
        context.load_cert_chain(path, password="")  # without one, a locked key would be asked for on the terminal
    except OSError as exc:
        found = "no certificate with its key, or the key needs a password"
        told = found if isinstance(exc, ssl.SSLError) else exc.strerror or found
        raise SpecError("federate.certificate", f"{path}: {told}", "A PEM file that has both, unlocked") from None
    return context


@contextmanager
def served(rooms: Mapping[str, Room], host: str, port: int, context: ssl.SSLContext | None) -> Iterator[str]:
    """A server for as long as it is held; its HOST:PORT. Raises ``SpecError`` for an address that cannot be had."""
    handler = type("SiteHandler", (_Handler,), {"rooms": rooms})
    kind = _Server6 if ":" in host else _Server
    try:
        server = kind((host, port), handler)
    except (OSError, OverflowError) as exc:
        found = getattr(exc, "strerror", None) or str(exc)
        raise SpecError(f"listen {host}:{port}", found, "Choose another port") from None
    server.context = context
    thread = threading.Thread(target=server.serve_forever, name="sites", daemon=True)
    thread.start()
    try:
        yield f"{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for each connection: a client that says nothing holds up no other one, and has :data:`TIMEOUT_S` to say all
    that it has to say, however slowly it comes."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def __init__(self, *given: Any) -> None:
        self.writing = threading.Lock()
        self._late_s: dict[socket.socket, float] = {}
        self._count = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*given)

    def server_bind(self) -> None:
        """Without the base class's search for this host's name, which may wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._count.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._count.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(TIMEOUT_S)
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            self.listens_to(request)
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
            super().finish_request(request, client_address)
        finally:
            self.heard(request)
            self.shutdown_request(request)

    def listens_to(self, request: socket.socket, more_bytes: int = 0) -> None:
        self._late_s[request] = time.monotonic() + TIMEOUT_S + more_bytes / LEAST_BYTES_A_SECOND

    def heard(self, request: socket.socket) -> None:
        self._late_s.pop(request, None)

    def service_actions(self) -> None:
        """Now and then, in the server's own thread: ends connections that are late."""
        now = time.monotonic()
        for request in [each for each, late_s in list(self._late_s.items()) if late_s < now]:
            self.heard(request)
            with suppress(OSError):  # it is gone already
                socket.socket.shutdown(request, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off: the site asks again."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    rooms: Mapping[str, Room] = {}
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgedeploy", ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """What was asked is in the spool."""

    def handle_one_request(self) -> None:
        self.server.listens_to(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        self.server.heard(self.connection)
        found = self._room()
        if found is None:
            return
        room, kind, name = found
        if kind == "requests" and name is None:
            self._say(HTTPStatus.OK, json.dumps({"numbers": room.spool.open()}).encode())
        elif kind == "requests" and name and name.isdigit() and int(name) in room.spool.numbers():
            self._say(HTTPStatus.OK, room.spool.request(int(name)))
            room.fetched.add(int(name))
        elif kind == "checkpoints" and name and len(name) == 64 and room.spool.checkpoint_path(name).is_file():
            self._say_file(room.spool.checkpoint_path(name))
        else:
            self._say(HTTPStatus.NOT_FOUND)

    def do_PUT(self) -> None:
        found = self._room()
        if found is None:
            return
        room, kind, name = found
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10) or int(length) > MOST_ANSWER_BYTES:
            self.close_connection = True  # its body is not read, and would be taken for the next request
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self.server.listens_to(self.connection, int(length))
        data = self.rfile.read(int(length))
        self.server.heard(self.connection)
        if kind != "answers" or not name or not name.isdigit() or int(name) not in room.spool.numbers():
            self._say(HTTPStatus.NOT_FOUND)
            return
        try:
            room.check(int(name), data)
        except EdgeDeployError:
            self._say(HTTPStatus.BAD_REQUEST)
            return
        with self.server.writing:
            there = int(name) in room.spool.answered()
            if there and room.spool.answer_bytes(int(name), MOST_ANSWER_BYTES) != data:
                self._say(HTTPStatus.CONFLICT)  # what was decided by an answer stays decided
                return
            if not there:
                room.spool.answer(int(name), data)
        self._say(HTTPStatus.CREATED)

    def _room(self) -> tuple[Room, str, str | None] | None:
        """The site's own, where its token is right; else the connection is told and closed."""
        match = _PATH.fullmatch(self.path)
        given = self.headers.get("Authorization", "").removeprefix(_WORD).encode()
        room = self.rooms.get(match[1]) if match else None
        right = hmac.compare_digest(given, (room.token if room else "").encode()) and room is not None
        if not match or not right or room is None:
            self.close_connection = True
            self._say(HTTPStatus.FORBIDDEN)
            return None
        return room, match[2], match[3]

    def _say(self, status: HTTPStatus, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def _say_file(self, path: Path) -> None:
        with path.open("rb") as stream:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            shutil.copyfileobj(stream, self.wfile)

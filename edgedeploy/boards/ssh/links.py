"""Connections to one server, each through all of its jump servers. A second one is opened where the server allows a
connection fewer sessions than a board needs (``MaxSessions``)."""

from __future__ import annotations

import logging
import os
import shlex
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.boards.ssh.config import Endpoint
from edgedeploy.boards.ssh.hostkeys import KnownHosts, prefer_known
from edgedeploy.boards.ssh.login import log_in
from edgedeploy.boards.ssh.records import fingerprint
from edgedeploy.errors import CommandFailed, UnknownHost

if TYPE_CHECKING:
    import paramiko

MOST_LINKS: Final = 4
"""A board needs three sessions at once: its lease, its files, and one command."""

Operation = Callable[[str, float], AbstractContextManager[object]]
"""Gives a step its deadline, and its failures their type."""


class Links:
    """``timeout_s`` bounds each server's connection, host key and login."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._links: list[list[paramiko.Transport]] = []
        self.host_key = ""
        """Type and fingerprint of the server's own key, once it is connected."""

    def open(self, operation: Operation) -> paramiko.Transport:
        """Connect through every jump server; raises ``Unreachable`` or ``HostKeyError``."""
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks are our errors' causes
        hops: list[paramiko.Transport] = []
        self._links.append(hops)
        way: Any = None
        try:
            for hop in (*self._endpoint.jumps, self._endpoint):
                with operation(f"connect to {hop.address}", self._timeout_s):
                    way = self._open_hop(hop, way, hops)
        except BaseException:
            self._links.remove(hops)
            _end([hops])
            raise
        shown = hops[-1].get_remote_server_key()
        self.host_key = f"{shown.get_name()} {fingerprint(shown.asbytes())}"
        return hops[-1]

    def _open_hop(self, hop: Endpoint, way: Any, hops: list[paramiko.Transport]) -> paramiko.Transport:
        """Log in to ``hop`` through ``way`` (None: directly); returns the transport that leads on from there."""
        import paramiko

        transport = paramiko.Transport(_socket_to(hop, way, self._timeout_s))
        hops.append(transport)
        records = KnownHosts(hop.known_hosts, hop.record_names, hop.revoked_keys)
        options = transport.get_security_options()
        options.key_types = prefer_known(list(options.key_types), records.trusted())
        transport.start_client(timeout=self._timeout_s)
        address = hop.host if hop.port == 22 else f"-p {hop.port} {hop.host}"
        records.check(transport.get_remote_server_key(), address)
        log_in(transport, hop)
        return transport

    def session(self, operation: Operation) -> paramiko.Channel:
        """A new session's channel, on another connection where those that there are refuse it. Raises ``CommandFailed``
        when a fresh one refuses too."""
        import paramiko

        for hops in list(self._links):
            try:
                return hops[-1].open_session()
            except paramiko.ChannelException:
                continue
        asked = f"{self._endpoint.address}: open a session"
        remedy = "Allow it sessions, in its sshd_config: MaxSessions 3"
        if len(self._links) >= MOST_LINKS:
            raise CommandFailed(asked, f"{len(self._links)} connections have no session left", remedy)
        fresh = self.open(operation)
        try:
            return fresh.open_session()
        except paramiko.ChannelException as exc:
            raise CommandFailed(asked, f"the server opens none on a fresh connection ({exc.text})", remedy) from exc

    def is_up(self) -> bool:
        """Whether every connection is logged in and alive: a lease or a transfer lies on one of them."""
        ends = [hops[-1] for hops in self._links if hops]
        return bool(ends) and all(end.is_authenticated() and end.is_active() for end in ends)

    def cut(self) -> None:
        """End every connection at once."""
        _end(self._links)


def _end(links: Sequence[Sequence[paramiko.Transport]]) -> None:
    """The first socket of each is closed first: any blocked call then returns, and closing the others cannot block on a
    peer that does not read."""
    for hops in links:
        for transport in hops[:1]:
            _break(transport.sock)
    for hops in links:
        for transport in reversed(hops):
            transport.close()


def _socket_to(hop: Endpoint, link: Any, timeout_s: float) -> Any:
    import paramiko

    if link is not None:
        return _Tunnel(link.open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=timeout_s))
    if hop.proxy_command:
        return paramiko.ProxyCommand(proxy_line(hop.proxy_command))
    try:
        connection = socket.create_connection((hop.host, hop.port), timeout=timeout_s)
    except socket.gaierror as exc:
        if exc.errno == socket.EAI_AGAIN:  # no name server answered
            raise
        remedy = f"Check how it is spelt (`getent hosts {hop.host}` answers), or give its address"
        raise UnknownHost(f"connect to {hop.host}", "no host is known by that name", remedy) from exc
    # Small requests and answers: waiting to fill a packet costs 50 ms each.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def proxy_line(command: str) -> str:
    """The user's own ProxyCommand, run by the user's shell as OpenSSH runs it; names in it were checked before."""
    return shlex.join([os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"])


class _Tunnel:
    """A jump server's channel as a socket that may be closed after its connection; a plain channel raises then."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(EOFError, OSError):
            self._channel.close()


def _break(connection: Any) -> None:
    """Shut a connection down while others read it. Closing its descriptor instead could give its number to another
    file."""
    with suppress(OSError):
        if isinstance(connection, socket.socket):
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.close()

"""A site's way to the coordinator: a folder, or a connection outward over https (http on the loopback address alone)."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgedeploy.errors import DataError, LoginRefused, SpecError, Unreachable
from edgedeploy.federated.mailbox import Mailbox, Spool, take
from edgedeploy.federated.messages import MOST_REQUEST_BYTES, MOST_REQUESTS
from edgedeploy.federated.specs import SiteSpec
from edgedeploy.federated.tokens import is_loopback, token_in
from edgedeploy.files import parsed
from edgedeploy.spec.source import SpecSource

TIMEOUT_S: Final = 60.0


def mailbox_of(spec: SiteSpec, source: SpecSource) -> Mailbox:
    """The site's side of the wire; nothing is connected yet. Raises ``SpecError``."""
    base, site = source.path.resolve().parent, spec.site
    if site.coordinator is None:
        assert site.spool is not None
        return Spool(base / site.spool)
    try:
        parts = urlsplit(site.coordinator)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise source.error("site.coordinator", str(exc), "Write https://HOST:PORT") from None
    if not host:
        raise source.error("site.coordinator", "it names no host", "Write https://HOST:PORT")
    if parts.scheme == "http" and not is_loopback(host):
        found = f"http to {host}: anybody on the way reads along, the token too"
        raise source.error("site.coordinator", found, "Write https://")
    assert site.token_file is not None
    authority = base / site.authority if site.authority is not None else None
    context = _context(authority) if parts.scheme == "https" else None
    port = port or (443 if context else 80)
    return Connection(site.name, host, port, token_in(base / site.token_file, "site.token_file"), context)


def _context(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if authority is None else str(authority))
    except OSError as exc:
        found = f"{authority}: {exc.strerror or 'no certificate'}"
        raise SpecError("site.authority", found, "A PEM file with the certificate to check against") from None


@dataclass(frozen=True)
class Connection:
    """A site's connection to the coordinator, opened anew for each exchange."""

    site: str
    host: str
    port: int
    token: str = field(repr=False)
    context: ssl.SSLContext | None = None

    @property
    def where(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.host}:{self.port}"

    def open(self) -> tuple[int, ...]:
        data = self._get("requests", 1 << 14)
        try:
            found = parsed(data)["numbers"]
            if not isinstance(found, list) or not all(type(number) is int for number in found):
                raise ValueError("no whole numbers")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(
                f"requests at {self.where}", "no list of numbers", "Both ends must be of one release"
            ) from None
        return tuple(sorted(number for number in found if 0 < number <= MOST_REQUESTS))

    def request(self, number: int) -> bytes:
        return self._get(f"requests/{number:03d}", MOST_REQUEST_BYTES)

    def checkpoint(self, sha256: str, size_bytes: int, to: Path) -> None:
        with self._exchange("GET", f"checkpoints/{sha256}") as answer:
            take(answer.read, sha256, size_bytes, to)

    def answer(self, number: int, data: bytes) -> None:
        with self._exchange("PUT", f"answers/{number:03d}", data) as answer:
            answer.read(1 << 10)

    def _get(self, name: str, most_bytes: int) -> bytes:
        with self._exchange("GET", name) as answer:
            data = answer.read(most_bytes + 1)
            if answer.length and len(data) <= most_bytes:
                raise http.client.IncompleteRead(data, answer.length)
            return data

    @contextmanager
    def _exchange(self, method: str, name: str, data: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        """Raises ``Unreachable`` (tried again by the same command) and ``LoginRefused``."""
        asked = f"site {self.site} at {self.where}"
        connection = self._opened()
        try:
            connection.request(method, f"/v1/{self.site}/{name}", data, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            if answer.status == HTTPStatus.FORBIDDEN:
                raise LoginRefused(asked, "the coordinator lets nobody in with this token", "Compare the token files")
            if answer.status == HTTPStatus.CONFLICT:
                remedy = "Ask the coordinator: an answer is taken once"
                raise DataError(asked, f"another answer is there already in place of {name}", remedy)
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise DataError(asked, f"{method} {name}: {answer.status}", "Both ends must be of one release")
            yield answer
        except ssl.SSLCertVerificationError as exc:
            remedy = "Compare [site] authority with the coordinator's certificate, its names and its dates"
            raise LoginRefused(asked, f"its certificate is not trusted: {exc.verify_message}", remedy) from None
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(asked, str(exc) or type(exc).__name__, "Run the same command again") from None
        finally:
            connection.close()

    def _opened(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=self.context)

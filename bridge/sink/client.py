"""The wire to MOOST; the only file that knows httpx.

Rules:
- A call has three ends: an answer, surely not sent, or a lost reply. Nothing here raises for a bad network.
- Every call is bounded in time; redirects are not followed (the token call carries the secret in its address);
  no cookies, no proxies from the environment: `moost.proxy` is the way, for every call, or none.
- Connections have a greatest age, whatever the traffic: operators move MOOST by its name, and a name with several
  addresses is meant to use them.
- No exception, request or answer of the library is ever printed: its texts carry addresses, and so the secret.
  Requests go straight to httpx's transport, which neither logs nor raises for a status.
- An answer is read up to a limit, whatever its length says; a compressed one, which is never asked for, too.

The transport is aiohttp under httpx's interface, 3 to 6 times as fast as httpx's own. The library may silently repeat a
GET or PUT on a connection that turns out to be closed; never a POST.

Source: MOOST documentation, "Common integration" (GET /auth/token/v1 with clientId and clientSecret in the query).
"""

import asyncio
import contextlib
import math
import random
import socket
import ssl
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self, cast

import aiohttp
import httpx
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from httpx_aiohttp import AiohttpTransport

from bridge.config import Moost
from bridge.logs import Redaction
from bridge.sink import causes
from bridge.sink.classify import Failure, Reply
from bridge.sink.encode import WireCall

TOKEN_PATH: Final = "/auth/token/v1"  # noqa: S105 - a path

GREATEST_AGE_S: Final = 60.0  # of a connection: then the name is asked for again
_IDLE_SECONDS: Final = 4.0  # below the 5 s after which common servers close an idle connection under a request
_SPARE_CONNECTIONS: Final = 4  # beside `max_concurrency`: the token call, and probes of a platform that hangs
_CONNECT_SHARE: Final = 0.8  # of a call's time: then a connection that never comes about is known as not sent
_ANSWER_BYTES: Final = 8 * 2**20
_ACCEPT: Final = {"accept": "application/json", "accept-encoding": "identity"}
_KEPT_HEADERS: Final = ("retry-after",)
_UNPACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_ANY_WRAPPER: Final = 32 + zlib.MAX_WBITS  # of zlib: gzip or zlib, whichever the bytes say
_ISSUER_EVERY_S: Final = 60.0  # how often it is looked up who issued a certificate that is not trusted
_ISSUER_WITHIN_S: Final = 2.0


@dataclass(slots=True)
class _Connections:
    """Connections of about the same age."""

    transport: httpx.AsyncBaseTransport
    ends: float  # no call begins on them from then on [s]
    calls: int = 0  # on the wire


class MoostClient:
    """Connections to one MOOST, kept open between calls."""

    def __init__(
        self, moost: Moost, transport: httpx.AsyncBaseTransport | None = None, *, secrets: Iterable[str] = ()
    ) -> None:
        """Prepare; nothing is sent yet. `secrets` are kept out of answers too; another `transport` is for tests."""
        self._moost = moost
        self._secrets = frozenset(secrets)
        self._tokens: tuple[str, ...] = ()  # the newest, and the one before
        self._redaction = self._redact()
        self._issuer, self._issuer_until = "", 0.0
        self._seconds = moost.timeout.total_seconds()
        self._base = httpx.URL(moost.base_url.rstrip("/"))
        self._given = transport
        self._context = _context(moost.ca_file)
        self._connections: _Connections | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._urls: dict[str, httpx.URL] = {}
        self._token = ""
        self._plain = self._json = httpx.Headers(_ACCEPT)  # with the token, once there is one
        connect = self._seconds * _CONNECT_SHARE
        self._extensions = {"timeout": {"connect": connect, "pool": connect, "read": None, "write": None}}

    def __repr__(self) -> str:
        """Say nothing that could be a secret."""
        return f"{type(self).__name__}()"

    async def __aenter__(self) -> Self:
        """Use it as a context."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.transport.aclose()
        await asyncio.gather(*self._closing)

    def reload(self, moost: Moost, secrets: Iterable[str] = ()) -> None:
        """Take other credentials, for the next token call, and another way, for the next call."""
        before, self._moost = self._moost, moost
        self._secrets |= frozenset(secrets)
        self._redaction = self._redact()
        if moost.ca_file or moost.ca_file != before.ca_file:  # the system's certificates take 20 ms to read
            self._context = _context(moost.ca_file)
        if self._connections is not None and (moost.ca_file or _way(moost) != _way(before)):
            self._connections.ends = 0.0

    def mask(self, text: str) -> str:
        """Return a text of an answer without secrets and tokens."""
        return self._redaction.text(text)

    def _redact(self) -> Redaction:
        return Redaction({*self._secrets, self._moost.client_secret.get_secret_value(), *self._tokens})

    async def call(self, call: WireCall, token: str) -> Reply | Failure:
        """Make one call with a token."""
        if token != self._token:
            self._token = token
            self._tokens = (token, *self._tokens[:1])
            self._redaction = self._redact()
            common = {"authorization": f"Bearer {token}", **_ACCEPT}
            self._plain = httpx.Headers(common)
            self._json = httpx.Headers({**common, "content-type": "application/json"})
        headers = self._plain if call.body is None else self._json
        return await self._send(call.method, self._url(call.path), headers, call.body)

    async def fetch_token(self) -> Reply | Failure:
        """Ask for a token; the answer's body holds it."""
        url = self._url(TOKEN_PATH).copy_merge_params(
            {
                "clientId": self._moost.client_id,
                "clientSecret": self._moost.client_secret.get_secret_value(),
            }
        )
        return await self._send("GET", url, httpx.Headers(_ACCEPT), None)

    def _url(self, path: str) -> httpx.URL:
        """Return the address of a path; the two of the hot path are kept."""
        known = self._urls.get(path)
        if known is None:
            known = self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + path.encode("ascii"))
            if path.startswith("/events/"):
                self._urls[path] = known
        return known

    async def _send(self, method: str, url: httpx.URL, headers: httpx.Headers, body: bytes | None) -> Reply | Failure:
        # A ready stream spares httpx its own headers (the transport adds Host and Content-Length): a third of the time.
        stream = httpx.ByteStream(body or b"")
        request = httpx.Request(method, url, headers=headers, stream=stream, extensions=self._extensions)
        request.read()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._exchange(request)
        except (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, TimeoutError, OSError) as error:
            return await self._failed(error)

    async def _exchange(self, request: httpx.Request) -> Reply:
        """Make a request on connections that are not too old."""
        used = self._current()
        used.calls += 1
        try:
            return await _read(await used.transport.handle_async_request(request))
        finally:
            used.calls -= 1
            if used is not self._connections:
                self._close_unused(used)

    def _current(self) -> _Connections:
        """Return the connections that calls begin on now."""
        old, now = self._connections, time.monotonic()
        if old is not None and now < old.ends:
            return old
        transport = self._given or _transport(self._moost, self._context)
        self._connections = _Connections(transport, now + GREATEST_AGE_S if self._given is None else math.inf)
        if old is not None:
            self._close_unused(old)
        return self._connections

    def _close_unused(self, old: _Connections) -> None:
        """Close connections that no call uses any more, beside what goes on."""
        if not old.calls and old.transport is not self._given:
            task = asyncio.create_task(old.transport.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _failed(self, error: BaseException) -> Failure:
        """Return what a failure of the library means, by its cause."""
        why = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error
        issuer = await self._who_issued() if causes.is_distrust(why) else ""
        connecting = isinstance(why, aiohttp.ConnectionTimeoutError)
        return causes.failure(why, seconds=self._seconds * (_CONNECT_SHARE if connecting else 1), issuer=issuer)

    async def _who_issued(self) -> str:
        """Return who issued the certificate that MOOST's address shows; empty where that cannot be found out."""
        if time.monotonic() >= self._issuer_until:
            self._issuer_until = time.monotonic() + _ISSUER_EVERY_S
            try:
                async with asyncio.timeout(_ISSUER_WITHIN_S):
                    self._issuer = causes.issuer_of(await self._certificate())
            except (OSError, TimeoutError):
                self._issuer = ""
        return self._issuer

    async def _certificate(self) -> bytes:
        """Fetch the certificate (DER) by a request that holds nothing of ours; it may go through a proxy."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        found = b""

        class Seen(ssl.SSLObject):
            """A TLS connection whose other side shows its certificate."""

            def do_handshake(self) -> None:
                """Keep the certificate."""
                nonlocal found
                super().do_handshake()
                found = self.getpeercert(binary_form=True) or b""

        context.sslobject_class = Seen
        transport = _transport(self._moost, context)
        with contextlib.suppress(httpx.HTTPError, aiohttp.ClientError):
            response = await transport.handle_async_request(httpx.Request("HEAD", self._base.copy_with(raw_path=b"/")))
            await response.aclose()
        await transport.aclose()
        return found


async def _read(response: httpx.Response) -> Reply:
    """Read the whole answer, or as much of it as may be."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in cast("httpx.AsyncByteStream", response.stream):  # as it came: a coding was not asked for
            size += len(part)
            if size > _ANSWER_BYTES:
                break
            parts.append(part)
    finally:
        await response.aclose()
    if not parts and response.is_success:
        return Reply(status=response.status_code)
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    body, flaw = _unpacked(b"".join(parts), response.headers.get("content-encoding", ""))
    return Reply(status=response.status_code, headers=headers, body=body, flaw=flaw)


def _unpacked(body: bytes, coding: str) -> tuple[bytes, str]:
    """Return a body without its coding, or why it cannot be read: a few bytes of it could become gigabytes."""
    coding = coding.strip().lower()
    if not body or coding in {"", "identity"}:
        return body, ""
    named = coding[:20] if coding.isascii() and coding.isprintable() else "?"
    if coding not in _UNPACKED:
        return b"", f"a compressed body ({named}), which was not asked for"
    for wrapper in (_ANY_WRAPPER, -zlib.MAX_WBITS):  # some send "deflate" bare
        try:
            return zlib.decompressobj(wrapper).decompress(body, _ANSWER_BYTES), ""
        except zlib.error:
            continue
    return b"", f"a compressed body ({named}) that is broken"


def _way(moost: Moost) -> tuple[str, str]:
    return moost.ca_file, moost.proxy.get_secret_value()


def _context(ca_file: str) -> ssl.SSLContext:
    """Return whom TLS trusts: a file's certificates alone, else those of the system and those that httpx brings."""
    if ca_file:
        return ssl.create_default_context(cafile=ca_file)
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def _transport(moost: Moost, context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    connections = moost.max_concurrency + _SPARE_CONNECTIONS

    def session() -> aiohttp.ClientSession:
        jar, proxy = aiohttp.DummyCookieJar(), moost.proxy.get_secret_value() or None
        # A proxy that relays plain HTTP closes when it likes, and a call on its way then is in doubt.
        once = proxy is not None and not moost.base_url.startswith("https:")
        connector = aiohttp.TCPConnector(
            limit=connections, ssl=context, resolver=_Shuffled(),
            **{"force_close": True} if once else {"keepalive_timeout": _IDLE_SECONDS},
        )  # fmt: skip
        # Compressed answers were not asked for, and a few bytes of one can become gigabytes.
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False, proxy=proxy)

    return AiohttpTransport(verify=context, client=session)


class _Shuffled(ThreadedResolver):
    """Uses all addresses of a name: connections begin with any of them, those of the better family first."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name."""
        found = await super().resolve(host, port, family)
        families = list(dict.fromkeys(each["family"] for each in found))
        random.shuffle(found)
        return sorted(found, key=lambda each: families.index(each["family"]))

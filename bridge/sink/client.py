"""The wire to MOOST; the only file that knows httpx.

Rules:
- A call has three ends: an answer, surely not sent, or a lost reply. Nothing here raises for a bad network.
- Every call is bounded in time; redirects are not followed (the token call carries the secret in its address);
  no cookies, no proxies from the environment.
- No exception, request or answer of the library is ever printed: its texts carry addresses, and so the secret.
  Requests go straight to httpx's transport, which neither logs nor raises for a status.
- An answer is read up to a limit, whatever its length says.

The transport is aiohttp under httpx's interface, 3 to 6 times as fast as httpx's own. Its exceptions lie (a lost reply
and a refused port are both `ConnectTimeout`), so the cause decides: only `ClientConnectorError` and
`ConnectionTimeoutError` happen before anything is sent. The library may silently repeat a GET or PUT on a connection
that turns out to be closed; never a POST.

Source: MOOST documentation, "Common integration" (GET /auth/token/v1 with clientId and clientSecret in the query).
"""

import asyncio
from typing import Final, Self, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from bridge.config import Moost
from bridge.sink.classify import Failure, Reply
from bridge.sink.encode import WireCall

TOKEN_PATH: Final = "/auth/token/v1"  # noqa: S105 - a path

_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_IDLE_SECONDS: Final = 4.0  # below the 5 s after which common servers close an idle connection under a request
_SPARE_CONNECTIONS: Final = 4  # beside `max_concurrency`: the token call, and probes of a platform that hangs
_CONNECT_SHARE: Final = 0.8  # of a call's time: then a connection that never comes about is known as not sent
_ANSWER_BYTES: Final = 8 * 2**20
_ACCEPT: Final = {"accept": "application/json", "accept-encoding": "identity"}
_KEPT_HEADERS: Final = ("retry-after", "content-type")


class MoostClient:
    """Connections to one MOOST, kept open between calls."""

    def __init__(self, moost: Moost, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Prepare; nothing is sent yet. Another `transport` is for tests."""
        self._moost = moost
        self._seconds = moost.timeout.total_seconds()
        self._base = httpx.URL(moost.base_url.rstrip("/"))
        self._transport = transport or _transport(moost)
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
        await self._transport.aclose()

    def reload(self, moost: Moost) -> None:
        """Take other credentials, for the next token call."""
        self._moost = moost

    async def call(self, call: WireCall, token: str) -> Reply | Failure:
        """Make one call with a token."""
        if token != self._token:
            self._token = token
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
                response = await self._transport.handle_async_request(request)
                return await _read(response, wanted=method == "GET" or not response.is_success)
        except (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, TimeoutError, OSError) as error:
            return _failure(error)


async def _read(response: httpx.Response, *, wanted: bool) -> Reply:
    """Read the whole answer, or as much of it as may be; an answer that nobody wants is not kept."""
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
    if not wanted:
        return Reply(status=response.status_code)
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Reply(status=response.status_code, headers=headers, body=b"".join(parts))


def _failure(error: BaseException) -> Failure:
    """Return what a failure of the library means, by its cause."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) else error
    if isinstance(cause, _NOT_SENT):
        return Failure.NOT_SENT
    return Failure.TIMEOUT if isinstance(cause, TimeoutError) else Failure.LOST


def _transport(moost: Moost) -> httpx.AsyncBaseTransport:
    context = httpx.create_ssl_context()
    connections = moost.max_concurrency + _SPARE_CONNECTIONS

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=_IDLE_SECONDS, ssl=context)
        # Compressed answers were not asked for, and a few bytes of one can become gigabytes.
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)

    return AiohttpTransport(verify=context, client=session)

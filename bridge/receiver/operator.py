"""The operator's page and data, for whoever has the admin token.

Rules:
- Without a configured token these addresses do not exist: 404.
- With one, a request without it, or with another, is 401. A program sends it as Bearer, a browser as the password of
  Basic. Wrong ones are counted by address: see `guesses`.
- The page loads nothing from elsewhere and runs no script.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from bridge.config.fields import Network
from bridge.receiver.addresses import payer
from bridge.receiver.guesses import Guesses
from bridge.receiver.health import Health

CHALLENGE: Final = {"www-authenticate": 'Basic realm="bridge", Bearer realm="bridge"'}
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>Bridge: {status}</title>
<style>body{{font:16px/1.5 system-ui;margin:2rem}}td{{padding:0 1.5rem 0 0}}h2{{font-size:1.1rem}}</style>
</head><body><h1>Bridge: {status}</h1>{tables}</body></html>
"""


class Operator:
    """ASGI-free handlers of `/` and `/api/…`."""

    def __init__(self, *, token: str, health: Health, guesses: Guesses, trusted: Sequence[Network]) -> None:
        """Take the admin token; empty = nothing here exists. `trusted` are the proxies that are believed."""
        self._token = token.encode()
        self._guesses = guesses
        self._trusted = trusted
        self._health = health

    def admit(self, token: str, trusted: Sequence[Network]) -> None:
        """Use another admin token from now on, and trust other proxies."""
        self._token = token.encode()
        self._trusted = trusted

    async def page(self, request: Request) -> Response:
        """Return the numbers of `/health` for people."""
        self._check(request)
        report = await self._health.report()
        tables = "".join(_table(name, value) for name, value in report.items())
        return HTMLResponse(_PAGE.format(status=escape(str(report["status"])), tables=tables), headers=_PAGE_HEADERS)

    async def api(self, request: Request) -> Response:
        """Return data; only `census` exists so far."""
        self._check(request)
        if request.path_params["path"] != "census":
            raise HTTPException(404)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        return JSONResponse(await self._health.report(), headers={"cache-control": "no-store"})

    def _check(self, request: Request) -> None:
        """Raise 404 where there is no token, 401 where the request has not got it, 429 after too many guesses."""
        if not self._token:
            raise HTTPException(404)
        offered, who = _offered(request.headers.get("authorization", "")), payer(request.scope, self._trusted)
        if not offered:
            raise HTTPException(401, "the admin token is missing or wrong", headers=CHALLENGE)
        if wait := self._guesses.wait(who):
            raise HTTPException(429, "too many wrong tokens", headers={"retry-after": str(wait)})
        if not hmac.compare_digest(offered, self._token):
            self._guesses.wrong(who)
            raise HTTPException(401, "the admin token is missing or wrong", headers=CHALLENGE)
        self._guesses.right(who)


def _offered(authorization: str) -> bytes:
    """Return the token that a request carries; empty for none."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip().encode("latin-1")  # the bytes as they came
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _table(name: str, value: object) -> str:
    """Return one part of the report as HTML."""
    rows = value.items() if isinstance(value, Mapping) else [("", value)]
    cells = "".join(f"<tr><td>{escape(str(key))}</td><td>{escape(str(number))}</td></tr>" for key, number in rows)
    return f"<h2>{escape(name.replace('_', ' '))}</h2><table>{cells}</table>"

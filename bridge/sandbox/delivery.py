"""Posting webhooks like a real cloud: signed, over few connections, again and again until they are taken.

Rules:
- A repeated message keeps its id; its timestamp and signature are those of the attempt.
- 2xx ends it. 408, 425, 429, 5xx and lost connections are tried again after max(backoff, Retry-After) until the
  patience is over; any other answer is final: repeating it cannot help.
- sent = accepted + duplicates + refused, message by message, whatever happened on the way.

Source: Standard Webhooks specification (headers webhook-id, webhook-timestamp, webhook-signature; `v1,` + base64 of
HMAC-SHA256 over `id.timestamp.body`; secret `whsec_` + base64).
"""

import asyncio
import base64
import hashlib
import hmac
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 30.0
_AGAIN: Final = frozenset({408, 425, 429})
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


class Signer:
    """Signs a subscription's messages; without a secret the signature is left out."""

    def __init__(self, secret: str | None) -> None:
        """Take a secret `whsec_<base64>`; raises ValueError when it is none."""
        self._key = None if secret is None else base64.b64decode(secret.removeprefix("whsec_") + "==", validate=False)
        if self._key == b"":
            raise ValueError("the secret is empty")

    def headers(self, message_id: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers of one attempt at `now` [epoch s]."""
        stamp = str(int(now))
        headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": stamp}
        if self._key is not None:
            signed = f"{message_id}.{stamp}.".encode() + body
            digest = hmac.digest(self._key, signed, hashlib.sha256)
            headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
        return headers


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the messages."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead: int = 0
    refused: int = 0
    retried: int = 0


class Courier:
    """Posts messages to one receiver."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        *,
        target: str,
        signer: Signer,
        dice: random.Random,
        patience_s: float = 600.0,
        speed: float = 0.0,
    ) -> None:
        """Post to `{target}/webhooks/{topic}`; give a message up after the patience [s].

        Where time runs at some speed, the longest wait before the next attempt is shortened with it.
        """
        self._http = http
        self._base = target.rstrip("/") + "/webhooks/"
        self._signer = signer
        self._dice = dice
        self._patience_s = patience_s
        self._longest_wait_s = max(_LONGEST_WAIT_S / max(speed, 1.0), _FIRST_WAIT_S)
        self._urls: dict[str, URL] = {}
        self.tally = Tally()

    async def post(self, topic: str, message_id: str, body: bytes) -> None:
        """Post one message until it is settled."""
        url = self._urls.setdefault(topic, URL(self._base + topic))
        self.tally.sent += 1
        deadline = time.monotonic() + self._patience_s
        wait_s = _FIRST_WAIT_S
        while True:
            status, answer, asked_s = await self._attempt(url, message_id, body)
            if 200 <= status < 300:  # noqa: PLR2004 - success
                self._settle(answer)
                return
            final = 400 <= status < 500 and status not in _AGAIN  # noqa: PLR2004 - the caller's fault
            if final or time.monotonic() > deadline:
                self.tally.refused += 1
                return
            self.tally.retried += 1
            await asyncio.sleep(max(asked_s, wait_s * self._dice.uniform(0.5, 1.0)))
            wait_s = min(2 * wait_s, self._longest_wait_s)

    async def _attempt(self, url: URL, message_id: str, body: bytes) -> tuple[int, bytes, float]:
        """Return status (0 = no answer), answer and the wait that was asked for [s]."""
        headers = self._signer.headers(message_id, body, time.time())
        try:
            async with self._http.post(url, data=body, headers=headers, timeout=_TIMEOUT) as answer:
                return answer.status, await answer.read(), asked_wait(answer.headers.get("retry-after"), time.time())
        except (aiohttp.ClientError, TimeoutError):
            return 0, b"", 0.0

    def _settle(self, raw: bytes) -> None:
        """Count an accepted message as the receiver counts it; one that says nothing took it."""
        answer: Any
        try:
            answer = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            answer = None
        told = answer if isinstance(answer, dict) else {}
        if told.get("duplicates"):
            self.tally.duplicates += 1
        else:
            self.tally.accepted += 1
        if told.get("dead"):
            self.tally.dead += 1


def asked_wait(header: str | None, now: float) -> float:
    """Return how long a Retry-After asks to wait [s]: seconds or an HTTP date; nonsense asks for nothing."""
    if header is None:
        return 0.0
    try:
        return max(float(header), 0.0) if header.isdigit() else parsedate_to_datetime(header).timestamp() - now
    except ValueError:
        return 0.0

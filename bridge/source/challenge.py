"""The handshake that comes as a message: Smartcar's VERIFY.

Rules:
- A challenge is a body of its own, never an element of an array; whatever is not exactly one is a message like others.
- Who has not signed the body is told nothing: an answer signs the challenge, so a stranger would have his own forgery
  signed. `PlainHmac.answer` keeps that, with the secret that the body was signed with.

Source: Smartcar documentation, "Callback URI verification" and "VERIFY" (`eventType`, `data.challenge`; before version
4.0 `eventName`, `payload.challenge`; the answer is 200 with `{"challenge": <hex of HMAC-SHA256>}` within 15 s).
"""

from typing import Final, Literal

import msgspec

LONGEST: Final = 16 * 2**10  # bytes; a handshake has some 400


class _Challenge(msgspec.Struct):
    challenge: str


class _Verify(msgspec.Struct):
    """As of version 4.0."""

    eventType: Literal["VERIFY"]  # noqa: N815 - as it is spelt there
    data: _Challenge


class _FormerVerify(msgspec.Struct):
    """Until version 3.0."""

    eventName: Literal["verify"]  # noqa: N815
    payload: _Challenge


_DECODERS: Final = (msgspec.json.Decoder(_Verify), msgspec.json.Decoder(_FormerVerify))


def challenge_in(body: bytes) -> str | None:
    """Return what a body asks to have signed; None = it is no handshake."""
    if len(body) > LONGEST or b'"challenge"' not in body:
        return None
    for decoder in _DECODERS:
        try:
            event = decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        return event.data.challenge if isinstance(event, _Verify) else event.payload.challenge
    return None

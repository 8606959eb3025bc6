"""Why there is no answer: the exceptions of the wire in a few words, and whether anything was sent.

Rules:
- Words name what an operator can act on: the name, the port, the certificate and who issued it, the proxy, the time.
- No address and no text of an exception is repeated: these hold the secret of the token call.
- The exceptions of the library lie (a lost reply and a refused port are both `ConnectTimeout`), so the cause decides:
  only what happens before a connection is there was surely not sent.

Source: OpenSSL, "X509_verify_cert_error_string" (verify codes); RFC 5280, section 4.1 (the fields of a certificate).
"""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Final

import aiohttp

from bridge.sink.classify import End, Failure

_CONNECTING: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)

_ERRNO_WORDS: Final[Mapping[int, str]] = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.ENETUNREACH: "no route to the network",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ETIMEDOUT: "timeout while connecting",
    errno.ECONNRESET: "connection reset while connecting",
    errno.EMFILE: "no open file is left for a connection",
}
_PROXY_WORDS: Final[Mapping[int, str]] = {
    401: ": it wants other credentials",  # as some say who mean 407
    403: ": it does not let calls through to this address",
    407: ": it wants other credentials",
}
_VERIFY_WORDS: Final[Mapping[int, str]] = {
    9: "certificate not valid yet: is the clock of this machine right?",
    10: "certificate expired",
    62: "certificate is for another name",
    64: "certificate is for another address",
}
"""Verify code of OpenSSL -> words; any other code means that the certificate is not trusted."""


def is_distrust(error: BaseException) -> bool:
    """Return whether a certificate was refused because of who issued it."""
    inner = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    return isinstance(inner, ssl.SSLCertVerificationError) and inner.verify_code not in _VERIFY_WORDS


def failure(error: BaseException, *, seconds: float, issuer: str = "") -> Failure:
    """Return what an exception of the wire means; `seconds` is how long a call may take."""
    if isinstance(error, _CONNECTING):
        return Failure(end=End.NOT_SENT, cause=_connecting(error, seconds, issuer))
    if isinstance(error, TimeoutError):
        return Failure(end=End.TIMEOUT, cause=f"timeout while answering ({seconds:g} s)")
    return Failure(end=End.LOST, cause=_losing(error))


def _connecting(error: BaseException, seconds: float, issuer: str) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"timeout while connecting ({seconds:g} s)"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy says {error.status}{_PROXY_WORDS.get(error.status, '')}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate(error.certificate_error, issuer)
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS handshake failed{_reason(error.os_error)}"
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else OSError()
    where = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    if isinstance(inner, socket.gaierror):
        known = inner.errno != socket.EAI_AGAIN
        return f"{where}name unknown" if known else f"{where}name not resolved: the DNS does not answer"
    return where + _ERRNO_WORDS.get(inner.errno or 0, f"no connection ({errno.errorcode.get(inner.errno or 0, '?')})")


def _certificate(error: BaseException, issuer: str) -> str:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    if code in _VERIFY_WORDS:
        return _VERIFY_WORDS[code]
    return f"certificate not trusted: issued by {issuer}" if issuer else "certificate not trusted"


def _reason(error: OSError) -> str:
    """Return the word of OpenSSL for what failed: a constant of the library, such as WRONG_VERSION_NUMBER."""
    word = error.reason if isinstance(error, ssl.SSLError) else None
    if word == "WRONG_VERSION_NUMBER":
        return ": the other side does not speak TLS"
    return f": {word.lower().replace('_', ' ')}" if word else ""


def _losing(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "connection closed before an answer"
    return "connection broke off"


# ---- who issued a certificate ---------------------------------------------------------------------------------------

_NAMES: Final = (bytes.fromhex("0603550403"), bytes.fromhex("060355040a"), bytes.fromhex("060355040b"))
"""What may stand for an issuer, the best first: common name, organisation, unit."""

_ISSUER_LENGTH: Final = 64
_SEQUENCE, _SET, _EXPLICIT_0 = 0x30, 0x31, 0xA0


def issuer_of(certificate: bytes) -> str:
    """Return who issued a certificate (DER); empty where it cannot be read."""
    try:
        _, whole = next(_elements(certificate))
        _, signed = next(_elements(whole))
        parts = [part for part in _elements(signed) if part[0] != _EXPLICIT_0]  # the version may be missing
        return _name(parts[2][1])  # behind serial number and algorithm
    except (IndexError, StopIteration):
        return ""


def _name(issuer: bytes) -> str:
    found: dict[bytes, str] = {}
    for _, names in _elements(issuer):
        for _, pair in _elements(names):
            for oid in _NAMES:
                if pair.startswith(oid):
                    _, value = next(_elements(pair[len(oid) :]))
                    found.setdefault(oid, value.decode("utf-8", "replace"))
    text = next((found[oid] for oid in _NAMES if oid in found), "")
    return "".join(letter for letter in text if letter.isprintable())[:_ISSUER_LENGTH]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of DER; raises IndexError where it ends too early."""
    place = 0
    while place < len(data):
        tag, length = data[place], data[place + 1]
        place += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[place : place + size], "big")
            place += size
        if place + length > len(data):
            raise IndexError
        yield tag, data[place : place + length]
        place += length

"""A token endpoint as an identity provider runs it: client credentials in, a signed JWT out, its keys published.

The signature is RS256 by hand: one modular power is all it takes, and the broker checks it with its own library.

Source: RFC 6749 section 4.4 (client credentials), RFC 7515 appendix A.2 and RFC 8017 section 9.2 (RS256), RFC 7517.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, unquote_plus

CLIENT: Final = "canary-kafka-client"
SECRET: Final = "canary-kafka-secret/9+4f"  # made up
SCOPE: Final = "device-data"
KEY_ID: Final = "key-1"
BITS: Final = 2_048
EXPONENT: Final = 65_537
WITNESSES: Final = 8  # of Miller and Rabin; ample for random numbers of this size
SHA256: Final = bytes.fromhex("3031300d060960864801650304020105000420")  # DER before the digest


def _is_prime(number: int) -> bool:
    if any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(WITNESSES):
        power = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if power in (1, number - 1):
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def _prime(bits: int) -> int:
    while True:
        number = secrets.randbits(bits) | (3 << bits - 2) | 1
        if number % EXPONENT != 1 and _is_prime(number):
            return number


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Key:
    """An RSA key that lives as long as the tests."""

    def __init__(self) -> None:
        """Make a new one."""
        one, other = _prime(BITS // 2), _prime(BITS // 2)
        self._modulus = one * other
        self._private = pow(EXPONENT, -1, (one - 1) * (other - 1))

    def published(self) -> dict[str, object]:
        """Return the key set that the broker fetches."""
        modulus = _text(self._modulus.to_bytes(BITS // 8))
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID, "n": modulus, "e": "AQAB"}
        return {"keys": [key]}

    def signed(self, claims: dict[str, object]) -> str:
        """Return a JSON web token."""
        head = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}
        content = ".".join(_text(json.dumps(part).encode()) for part in (head, claims))
        tail = b"\x00" + SHA256 + hashlib.sha256(content.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (BITS // 8 - 2 - len(tail)) + tail
        signature = pow(int.from_bytes(padded), self._private, self._modulus).to_bytes(BITS // 8)
        return f"{content}.{_text(signature)}"


@dataclass
class Issuer:
    """The endpoint: whom it knows, and what it gave out."""

    key: Key = field(default_factory=Key)
    port: int = 0
    lifetime_s: int = 3_600
    refusing: bool = False
    asked: int = 0
    tokens: list[str] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def grant(self, authorization: str, form: dict[str, list[str]]) -> str | None:
        """Return a token for who proves to be the client."""
        self.asked += 1
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        identifier, _, secret = pair.partition(":")
        known = (unquote_plus(identifier), unquote_plus(secret)) == (CLIENT, SECRET) or pair == f"{CLIENT}:{SECRET}"
        if self.refusing or not known or form.get("grant_type") != ["client_credentials"]:
            return None
        self.scopes.update(form.get("scope", []))
        now = int(time.time())
        claims = {"iss": self.url, "sub": CLIENT, "aud": "kafka", "iat": now, "exp": now + self.lifetime_s}
        self.tokens.append(self.key.signed({**claims, "scope": SCOPE, "jti": secrets.token_hex(8)}))
        return self.tokens[-1]


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run a token endpoint."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, issuer.key.published())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            token = issuer.grant(self.headers.get("authorization", ""), form)
            if token is None:
                self._answer(401, {"error": "invalid_client"})
            else:
                self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": issuer.lifetime_s})

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # pragma: no cover
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()

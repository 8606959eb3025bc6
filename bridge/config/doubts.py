"""What may be set, and is probably a mistake: `check` says so, and the daemon starts all the same.

Rules:
- A doubt is one line like a problem, and shows no secret.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from bridge.config.fields import Auth, Network
from bridge.config.models import Settings, Subscription

LEAST_SECRET: Final = 16  # characters, or bytes behind whsec_
LEAST_DIFFERENT: Final = 5  # of them
WIDEST_V4: Final = 1  # bits of a network that is half of all addresses

_GUESSED: Final = "can be guessed: it should have at least 16 characters, by chance"


def doubts(settings: Settings) -> Iterator[str]:
    """Yield what an operator should look at, `section.key: doubt`."""
    token = settings.server.admin_token.get_secret_value()
    if token and _is_weak(token.encode()):
        yield f"server.admin_token: {_GUESSED}"
    if any(_is_everybody(network) for network in settings.server.trusted_proxies):
        yield (
            "server.trusted_proxies: holds every address: whoever calls is believed who it says it is, and has no bound"
        )
    for index, each in enumerate(settings.subscriptions):
        for number, secret in enumerate(_keys(each)):
            if _is_weak(secret):
                yield f"subscriptions.{index}.secrets.{number}: {_GUESSED}"


def _keys(subscription: Subscription) -> Iterator[bytes]:
    """Yield what of each secret must not be guessed."""
    for secret in subscription.secrets:
        text = secret.get_secret_value()
        if subscription.auth is Auth.BASIC:
            text = text.partition(":")[2]
        if subscription.auth is Auth.STANDARD_WEBHOOKS:
            try:
                yield base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except (binascii.Error, ValueError):
                yield b""
        else:
            yield text.encode()


def _is_weak(secret: bytes) -> bool:
    return len(secret) < LEAST_SECRET or len(set(secret)) < LEAST_DIFFERENT


def _is_everybody(network: Network) -> bool:
    return network.prefixlen <= WIDEST_V4

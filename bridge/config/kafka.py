"""What must fit together in `[kafka]`, and between it and the subscriptions.

Source: librdkafka, "Configuration properties" (sasl.oauthbearer.*: the OIDC method needs an address, id and secret);
EHA developer portal, "Streaming introduction" (credentials open the topics of one subscription and no other).
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bridge.config.fields import Auth, Mechanism, is_loopback
from bridge.config.models import Kafka, Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bridge.config.checks import Place, Problem

EXTRA: Final = "needs the package confluent-kafka, which is not installed: the bridge's requirements.lock names it"
_ONLY_OAUTHBEARER: Final = ("token_url", "scope", "extensions", "token_ca_file")


def problems(settings: Settings, *, serving: bool, wrong: "Collection[Place]" = ()) -> "Iterator[Problem]":
    """Yield everything that does not fit; `serving` also asks for what only the daemon needs.

    `wrong` are the places whose values are known to be wrong and stand at their defaults.
    """
    if ("kafka", "bootstrap_servers") not in wrong:
        yield from _subscriptions(settings)
    kafka = settings.kafka
    if not kafka.bootstrap_servers:
        return
    if serving and find_spec("confluent_kafka") is None:
        yield ("kafka", "bootstrap_servers"), EXTRA
    yield from _topics(kafka)
    yield from _way(kafka, serving=serving)
    if not kafka.security.proving:
        return
    if kafka.mechanism is Mechanism.OAUTHBEARER:
        yield from _tokens(kafka)
    else:
        foreign = [key for key in _ONLY_OAUTHBEARER if getattr(kafka, key)]
        yield from (
            (("kafka", key), f'belongs to mechanism = "oauthbearer", not to "{kafka.mechanism}"') for key in foreign
        )
    if serving:
        yield from _credentials(settings)


def _subscriptions(settings: Settings) -> "Iterator[Problem]":
    """Yield what does not fit between the lists of subscriptions."""
    known, consumed = {each.id for each in settings.subscriptions}, {each.id for each in settings.consumed()}
    for index, name in enumerate(settings.kafka.subscriptions):
        if name not in known:
            yield ("kafka", "subscriptions", index), f"there is no subscription {name!r}"
    for index, each in enumerate(settings.subscriptions):
        if each.auth is Auth.KAFKA and each.id not in consumed:
            why = "kafka.subscriptions does not name it" if settings.kafka.bootstrap_servers else "there is no [kafka]"
            yield ("subscriptions", index, "auth"), f'"kafka", but {why}: no message could come'


def _topics(kafka: Kafka) -> "Iterator[Problem]":
    for index, topic in enumerate(kafka.topics):
        if not topic.startswith(("{subscription}.", "^")):
            yield ("kafka", "topics", index), 'must begin with "{subscription}.", or with "^" for a pattern'
        elif topic.startswith("^") and not _is_pattern(topic.replace("{subscription}", "s")):
            yield ("kafka", "topics", index), "is not a regular expression"


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _way(kafka: Kafka, *, serving: bool) -> "Iterator[Problem]":
    """Yield what is wrong with the way to the broker."""
    hosts = [urlsplit(f"//{server.strip()}").hostname for server in kafka.bootstrap_servers.split(",")]
    if kafka.security.proving and not kafka.security.encrypted and not all(map(is_loopback, hosts)):
        yield ("kafka", "security"), '"sasl_plaintext" would send the credentials in the clear; use "sasl_ssl"'
    if kafka.ca_file and not kafka.security.encrypted:
        yield ("kafka", "ca_file"), f'belongs to security = "ssl" or "sasl_ssl", not to "{kafka.security}"'
    for key in ("ca_file", "token_ca_file"):
        name = getattr(kafka, key)
        if serving and name and kafka.security.encrypted and not Path(name).is_file():
            yield ("kafka", key), f"there is no file {name!r}"


def _tokens(kafka: Kafka) -> "Iterator[Problem]":
    if not kafka.token_url:
        yield ("kafka", "token_url"), 'is needed with mechanism = "oauthbearer": where tokens are fetched'
    parts = urlsplit(kafka.token_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        yield ("kafka", "token_url"), "must be https: the client's secret goes there"


def _credentials(settings: Settings) -> "Iterator[Problem]":
    """Yield the subscriptions whose topics nothing would open."""
    common = 0
    for index, each in enumerate(settings.subscriptions):
        if each not in settings.consumed():
            continue
        own = (each.kafka_client_id, each.kafka_client_secret.get_secret_value())
        common += not any(own)
        for key, value in zip(("kafka_client_id", "kafka_client_secret"), own, strict=True):
            if any(own) and not value:
                yield ("subscriptions", index, key), "is missing beside the other"
    if common:
        present = {
            "client_id": settings.kafka.client_id,
            "client_secret": settings.kafka.client_secret.get_secret_value(),
        }
        yield from ((("kafka", key), "is missing") for key, value in present.items() if not value)

"""What is read from the broker of a subscription, and how librdkafka is told to reach it.

Source: librdkafka, "Configuration properties"; EHA demo application, `application.properties` (SASL_SSL, OAUTHBEARER,
earliest, no automatic commit); EHA developer portal, "Streaming introduction" (a topic is named by its message).
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from bridge.config import Kafka, Mechanism, Settings, Subscription
from bridge.core.vocabulary import ACTIONS

STRATEGY: Final = "cooperative-sticky"
SESSION: Final = timedelta(seconds=10)  # a consumer that is not heard of for so long loses its partitions
QUEUE_KIB: Final = 16_384  # fetched ahead
FETCH_BYTES: Final = 8 * 2**20  # of one answer of a broker, one larger record aside
METADATA_MS: Final = 60_000  # how often it is asked which topics there are
RECONNECT_MS: Final = (500, 5_000)  # first and longest wait between two tries

_MECHANISMS: Final[Mapping[Mechanism, str]] = {
    Mechanism.OAUTHBEARER: "OAUTHBEARER",
    Mechanism.PLAIN: "PLAIN",
    Mechanism.SCRAM_SHA_256: "SCRAM-SHA-256",
    Mechanism.SCRAM_SHA_512: "SCRAM-SHA-512",
}


def topics(kafka: Kafka, subscription: str) -> list[str]:
    """Return the topics of a subscription: names, and patterns that begin with "^"."""
    if not kafka.topics:
        return [f"{subscription}.{kind}.{action}" for kind, actions in ACTIONS.items() for action in actions]
    return [
        topic.replace("{subscription}", re.escape(subscription) if topic.startswith("^") else subscription)
        for topic in kafka.topics
    ]


def properties(settings: Settings, subscription: Subscription) -> dict[str, Any]:
    """Return librdkafka's properties for the topics of a subscription."""
    kafka = settings.kafka
    first, longest = RECONNECT_MS
    found: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": "moost-bridge",
        "group.id": kafka.group_id.replace("{subscription}", subscription.id),
        "auto.offset.reset": kafka.offset_reset.value,
        "enable.auto.commit": False,
        "allow.auto.create.topics": False,
        "partition.assignment.strategy": STRATEGY,
        "session.timeout.ms": round(SESSION.total_seconds() * 1000),
        "queued.max.messages.kbytes": QUEUE_KIB,
        "fetch.max.bytes": FETCH_BYTES,
        "topic.metadata.refresh.interval.ms": METADATA_MS,
        "reconnect.backoff.ms": first,
        "reconnect.backoff.max.ms": longest,
        "security.protocol": kafka.security.value.upper(),
    }
    if kafka.ca_file:
        found["ssl.ca.location"] = kafka.ca_file
    if kafka.security.proving:
        found |= _proof(kafka, *settings.kafka_credentials(subscription))
    return found


def _proof(kafka: Kafka, identifier: str, secret: str) -> dict[str, Any]:
    """Return the properties that say who the bridge is."""
    if kafka.mechanism is not Mechanism.OAUTHBEARER:
        return {"sasl.mechanism": _MECHANISMS[kafka.mechanism], "sasl.username": identifier, "sasl.password": secret}
    optional = {
        "sasl.oauthbearer.scope": kafka.scope,
        "sasl.oauthbearer.extensions": kafka.extensions,
        "https.ca.location": kafka.token_ca_file,
    }
    return {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": kafka.token_url,
        "sasl.oauthbearer.client.id": identifier,
        "sasl.oauthbearer.client.secret": secret,
        **{name: value for name, value in optional.items() if value},
    }

"""What an operator may say of Kafka, and what the client is told."""

from pathlib import Path
from typing import Any

import pytest

from bridge import config
from bridge.config import Settings
from bridge.core.vocabulary import ACTIONS
from bridge.errors import ConfigErrors
from bridge.source.broker import properties, topics

MOOST = """
[moost]
client_id = "abc"
client_secret = "def"
customer_id = "656730be2bc9719e6e5ed51d"
"""
PORTAL = """
bootstrap_servers = "broker.example:9093"
token_url = "https://login.example/token"
client_id = "streaming"
client_secret = "canary"
"""
ONLY_KAFKA = '[[subscriptions]]\nid = "s"\nauth = "kafka"\n'


def load(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "bridge.toml"
    path.write_text(text + MOOST, encoding="utf-8")
    return config.load(path, environ=environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, text, **environ)
    return list(caught.value.problems)


def told(folder: Path, text: str, subscription: str = "s", **environ: str) -> dict[str, Any]:
    settings = load(folder, text, **environ)
    chosen = settings.subscription(subscription)
    assert chosen is not None
    return properties(settings, chosen)


def test_what_the_partner_portal_shows_is_enough(tmp_path: Path) -> None:
    found = told(tmp_path, ONLY_KAFKA + "[kafka]" + PORTAL)
    expected = {
        "bootstrap.servers": "broker.example:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://login.example/token",
        "sasl.oauthbearer.client.id": "streaming",
        "sasl.oauthbearer.client.secret": "canary",
        "group.id": "moost-bridge-s",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "cooperative-sticky",
    }
    assert expected == {key: found.get(key) for key in expected}
    assert [] == [key for key in found if key.endswith(("location", "scope", "extensions", "username"))]


def test_everything_else_reaches_the_client_too(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    more = f"""
scope = "data"
extensions = "logicalCluster=lkc-1,identityPoolId=pool-1"
ca_file = "{tmp_path}/ca.pem"
token_ca_file = "{tmp_path}/ca.pem"
offset_reset = "latest"
group_id = "ours"
"""
    found = told(tmp_path, ONLY_KAFKA + "[kafka]" + PORTAL + more)
    expected = {
        "sasl.oauthbearer.scope": "data",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,identityPoolId=pool-1",
        "ssl.ca.location": f"{tmp_path}/ca.pem",
        "https.ca.location": f"{tmp_path}/ca.pem",
        "auto.offset.reset": "latest",
        "group.id": "ours",
    }
    assert expected == {key: found.get(key) for key in expected}


@pytest.mark.parametrize(
    ("mechanism", "spelt"),
    [("plain", "PLAIN"), ("scram-sha-256", "SCRAM-SHA-256"), ("scram-sha-512", "SCRAM-SHA-512")],
)
def test_a_user_with_a_password_is_client_id_and_secret(tmp_path: Path, mechanism: str, spelt: str) -> None:
    text = f'bootstrap_servers = "b:1"\nclient_id = "u"\nclient_secret = "pw"\nmechanism = "{mechanism}"\n'
    found = told(tmp_path, f"{ONLY_KAFKA}[kafka]\n{text}")
    assert (spelt, "u", "pw") == (found["sasl.mechanism"], found["sasl.username"], found["sasl.password"])


def test_a_subscription_has_credentials_and_a_group_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    own = ONLY_KAFKA.replace('"s"', '"t"')
    own += f'kafka_client_id = "mine"\nkafka_client_secret_file = "{secret}"\n'
    text = ONLY_KAFKA + own + "[kafka]" + PORTAL
    for subscription, identifier, password in (("s", "streaming", "canary"), ("t", "mine", "from a file")):
        found = told(tmp_path, text, subscription)
        assert identifier == found["sasl.oauthbearer.client.id"]
        assert password == found["sasl.oauthbearer.client.secret"]
        assert f"moost-bridge-{subscription}" == found["group.id"]
    assert {"canary", "streaming:canary", "from a file", "mine:from a file"} <= load(tmp_path, text).secret_values()


def test_the_secret_comes_from_a_file_or_a_variable(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    text = ONLY_KAFKA + "[kafka]" + PORTAL.replace('client_secret = "canary"', "")
    for name, value in (("CLIENT_SECRET_FILE", str(secret)), ("CLIENT_SECRET", "from a file")):
        found = told(tmp_path, text, **{f"BRIDGE_KAFKA__{name}": value})
        assert "from a file" == found["sasl.oauthbearer.client.secret"]


def test_the_topics_are_all_of_the_subscription_or_those_that_are_named(tmp_path: Path) -> None:
    settings = load(tmp_path, ONLY_KAFKA + "[kafka]" + PORTAL)
    assert {f"a.b.{kind}.{action}" for kind, actions in ACTIONS.items() for action in actions} == set(
        topics(settings.kafka, "a.b")
    )
    text = 'topics = ["{subscription}.meter.update", "^{subscription}\\\\.vehicle"]\n'
    settings = load(tmp_path, ONLY_KAFKA + "[kafka]" + PORTAL + text)
    assert ["s+.meter.update", r"^s\+\.vehicle"] == topics(settings.kafka, "s+")


def test_only_the_named_subscriptions_are_read(tmp_path: Path) -> None:
    other = '[[subscriptions]]\nid = "web"\nauth = "bearer"\nsecrets = ["t0ken"]\n'
    named = load(tmp_path, ONLY_KAFKA + other + '[kafka]\nsubscriptions = ["s"]' + PORTAL)
    assert ["s"] == [each.id for each in named.consumed()]
    assert ["s", "web"] == [each.id for each in load(tmp_path, ONLY_KAFKA + other + "[kafka]" + PORTAL).consumed()]


LOCAL = 'bootstrap_servers = "127.0.0.1:9092"\nsecurity = "plaintext"\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ONLY_KAFKA, 'subscriptions.0.auth: "kafka", but there is no [kafka]: no message could come'),
        (
            f'{ONLY_KAFKA}[[subscriptions]]\nid = "t"\nauth = "kafka"\n[kafka]\nsubscriptions = ["t"]\n{LOCAL}',
            'subscriptions.0.auth: "kafka", but kafka.subscriptions does not name it: no message could come',
        ),
        (
            f'{ONLY_KAFKA}secrets = ["x"]\n[kafka]\n{LOCAL}',
            'subscriptions.0.secrets: are not looked at with auth = "ka',
        ),
        (
            f'{ONLY_KAFKA}[kafka]\nsubscriptions = ["s", "x"]\n{LOCAL}',
            "kafka.subscriptions.1: there is no subscription",
        ),
        (f'{ONLY_KAFKA}[kafka]\ntopics = ["s.x"]\n{LOCAL}', 'kafka.topics.0: must begin with "{subscription}.", or'),
        (f'{ONLY_KAFKA}[kafka]\ntopics = ["^("]\n{LOCAL}', "kafka.topics.0: is not a regular expression"),
        (f'{ONLY_KAFKA}[kafka]\ngroup_id = ""\n{LOCAL}', "kafka.group_id: must have a length of at least 1"),
        (f'{ONLY_KAFKA}[kafka]\ngroup_id = "a b"\n{LOCAL}', "kafka.group_id: must be up to 200 letters"),
        (f'{ONLY_KAFKA}[kafka]\nbootstrap_servers = "a b"\n', "kafka.bootstrap_servers: must be host:port, several"),
        (
            f'{ONLY_KAFKA}[kafka]\nca_file = "/none"\n{LOCAL}',
            'kafka.ca_file: belongs to security = "ssl" or "sasl_ssl"',
        ),
        (f'{ONLY_KAFKA}[kafka]\nca_file = "/none.pem"\n{PORTAL}', "kafka.ca_file: there is no file '/none.pem'"),
        (f'{ONLY_KAFKA}[kafka]\nextensions = "x"\n{PORTAL}', 'kafka.extensions: must be "name=value", several with'),
        (f'{ONLY_KAFKA}[kafka]\nsecurity = "tls"\n{PORTAL}', "kafka.security: must be one of 'plaintext', 'ssl', 'sa"),
        (f'{ONLY_KAFKA}[kafka]\nmechanism = "magic"\n{PORTAL}', "kafka.mechanism: must be one of 'oauthbearer', 'plai"),
        (f'{ONLY_KAFKA}[kafka]\noffset_reset = "now"\n{PORTAL}', "kafka.offset_reset: must be one of 'earliest', 'lat"),
        (
            f'{ONLY_KAFKA}[kafka]\nsecurity = "sasl_plaintext"\n{PORTAL}',
            'kafka.security: "sasl_plaintext" would send the credentials in the clear; use "sasl_ssl"',
        ),
        (
            f"{ONLY_KAFKA}[kafka]\n{PORTAL.replace('https', 'http')}",
            "kafka.token_url: must be https: the client's secret goes there",
        ),
        (
            f'{ONLY_KAFKA}[kafka]\nbootstrap_servers = "b:1"\nclient_id = "a"\nclient_secret = "b"\n',
            "kafka.token_url: is n",
        ),
        (
            f'{ONLY_KAFKA}[kafka]\nmechanism = "plain"\n{PORTAL}',
            'kafka.token_url: belongs to mechanism = "oauthbearer",',
        ),
        (
            f'{ONLY_KAFKA}kafka_client_id = "x"\n[kafka]\n{PORTAL}',
            "subscriptions.0.kafka_client_secret: is missing besi",
        ),
        (f"{ONLY_KAFKA}[kafka]\n{PORTAL.replace('client_id', '# ')}", "kafka.client_id: is missing"),
        (f"{ONLY_KAFKA}[kafka]\n{PORTAL.replace('client_secret', '# ')}", "kafka.client_secret: is missing"),
    ],
)
def test_each_mistake_has_its_line(tmp_path: Path, text: str, line: str) -> None:
    [found] = problems(tmp_path, text)
    assert line == found[: len(line)]
    assert "canary" not in found


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = f'{ONLY_KAFKA}[kafka]\nbootstrap_servers = "b:1"\ntopics = ["x"]\nca_file = "/none"\nsubscriptions = ["y"]\n'
    assert [
        "subscriptions.0.auth",
        "kafka.ca_file",
        "kafka.subscriptions.0",
        "kafka.token_url",
        "kafka.topics.0",
    ] == [line.partition(":")[0] for line in problems(tmp_path, text)]

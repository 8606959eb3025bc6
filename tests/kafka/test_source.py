"""The real daemon and a real broker: what is written is held, whatever happens to either of them.

All tests that need the broker stand in this one file, because a file stays with one worker, and a broker with it.
"""

import asyncio
import base64
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from confluent_kafka.admin import ResourceType

from bridge.config import load
from bridge.source import kafka
from bridge.source.broker import properties
from bridge.source.kafka import Client, Record
from tests.kafka.broker import PASSWORD, USER, Broker, free_ports
from tests.kafka.inboxes import Inboxes, inbox, last
from tests.kafka.stage import NAMES, Letter, Stream, cars, reading
from tests.kafka.story import Story, uncommitted
from tests.kafka.tokens import CLIENT, SCOPE, SECRET, Issuer
from tests.life.others_devices import attacks, household, newest, remembered
from tests.life.stage import Bridge, ask, dump, run, until, vehicle

MAX_BODY: Final = 4_096
KILLS: Final = 5  # one of so many hits between a record and its commit; nearly always the first does
MIB: Final = 2**20
LOAD: Final = 160  # MiB of records
GROWTH: Final = 60 * MIB  # of memory: what librdkafka fetches ahead, twice, and some air
RECORDS: Final = 20


# ---- records of every kind ------------------------------------------------------------------------------------------


def test_records_of_every_topic_are_settled_or_dead_beside_webhooks(bridge: Bridge, stream: Stream) -> None:
    stream.create(*(name for name in NAMES if name not in stream.names), "vehicle.fly")
    letters: list[Letter] = [(name, dump({"id": f"a-{name}", "userId": "user-1", "deviceId": "d"})) for name in NAMES]
    letters += [(name, None) for name in ("vehicle.update", "battery.delete", "tariff.price.update")]
    letters += [("vehicle.update", value) for value in (b"", b"{", b"\xff", b"7", dump({"id": "x" * MAX_BODY}))]
    letters += [("vehicle.fly", b"{}"), ("vehicle.update", b"[]")]
    letters += [("vehicle.update", dump([vehicle("user-2", "car-1", 1), vehicle("user-2", "car-2", 2)]))]
    stream.write(letters)
    reading(bridge, stream, topics=["^{subscription}\\."])
    bridge.configure(server={"max_body": MAX_BODY})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-3", "car-1", 3))
    bridge.accepted += len(letters)  # the empty array is none, the other one two
    ledger = bridge.settled(owed=True)
    assert {"unreadable": 5, "unknown-topic": 1} == ledger["dead_letters"]
    assert (len(letters) + 1, 6, 0) == tuple(ledger["ledger"][fate] for fate in ("accepted", "dead", "parked"))
    idle = {"partitions": 3 * (len(NAMES) + 1), "paused": [], "lag": {}, "causes": [], "gone": [], "lost": {}}
    until(lambda: bridge.health()["kafka"] == idle, "no record waits")
    expected = {place for place, value in stream.written.items() if value != b"[]"}
    assert expected == set(inbox(bridge.store))
    assert "bridge_messages_accepted_total %.1f" % (len(letters) + 1) in bridge.metrics()
    assert 404 == ask("POST", f"{bridge.url}/webhooks/{stream.subscription}.vehicle.update", b"{}").status_code
    assert 0 == bridge.stop()
    # Nothing is left for the next member of the group: everything was committed on the way out.
    bridge.start()
    stream.write(cars(1))
    bridge.accepted += 1
    after = bridge.settled(owed=True)
    assert ledger["ledger"]["accepted"] + 1 == after["ledger"]["accepted"]
    assert "bridge_messages_duplicate_total 0.0" in bridge.metrics()


@pytest.mark.parametrize("user", [None, "user-9"], ids=["no user", "a user of its own"])
def test_records_write_no_device_of_another_subscription(bridge: Bridge, stream: Stream, user: str | None) -> None:
    now = datetime.now(UTC)
    letters = [(topic, dump(content)) for topic, content in attacks(user, now - timedelta(minutes=1))]
    stream.create(*{topic for topic, _ in letters if topic not in stream.names})
    bridge.start()
    for topic, content in household("user-1", now - timedelta(minutes=2), 0.25):
        bridge.take(topic, content)
    bridge.settled(owed=True)
    before = newest(asyncio.run(remembered(bridge, "user-1")))
    stream.write(letters)
    bridge.accepted += len(letters)
    health = bridge.settled(owed=True)
    assert before == newest(asyncio.run(remembered(bridge, "user-1")))
    assert ({"unreadable": len(letters)} if user is None else {}) == health["dead_letters"]


# ---- kills and rebalances -------------------------------------------------------------------------------------------


def test_what_was_stored_and_not_committed_at_a_kill_is_recognised(bridge: Bridge, stream: Stream) -> None:
    group = f"moost-bridge-{stream.subscription}"
    for number in range(1, KILLS + 1):
        stream.write(cars(6_000, 6_000 * number))
        bridge.start("--rooms", "receiver")
        until(lambda: last(bridge.store) > 6_000 * (number - 1) + 2_000, "the burst is under way")  # noqa: B023
        bridge.kill()
        held = inbox(bridge.store)
        assert len(held) < len(stream.written), "the kill hit within the burst"
        twice = uncommitted(stream, group, lambda: list(held))  # noqa: B023
        if twice:
            break
    assert twice > 0, "a kill hit between a record and its commit"

    bridge.start("--rooms", "receiver")
    until(lambda: set(stream.written) == set(inbox(bridge.store)), "every record is held")
    until(lambda: not uncommitted(stream, group, lambda: list(stream.written)), "every offset is committed")
    assert {1} == set(inbox(bridge.store).values()), "and none is twice"
    assert f"bridge_messages_duplicate_total {twice:.1f}" in bridge.metrics()
    assert len(stream.written) == bridge.health()["ledger"]["accepted"]


def test_two_daemons_share_a_stream_through_kills_of_one_and_of_the_broker(
    stream: Stream, pair: tuple[Bridge, Bridge], inboxes: Inboxes
) -> None:
    stream.create(*(name for name in NAMES if name not in stream.names))
    story = Story(stream, inboxes, pair, count=12_000, rooms="receiver")
    story.run()
    assert ["daemon killed", "broker killed"] == story.told


# ---- a broker that is not there, a door that is closed --------------------------------------------------------------


def test_a_broker_that_is_not_there_is_said_once_and_holds_nobody_up(bridge: Bridge, stream: Stream) -> None:
    [port] = free_ports(1)
    reading(bridge, stream, bootstrap_servers=f"127.0.0.1:{port}")
    bridge.start()
    until(lambda: "kafka_unreachable" in bridge.health()["problems"], "it is named")
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 1))
    bridge.settled(owed=True)
    assert bridge.ready()
    assert 0 == bridge.stop(), "it ends as ever"
    assert 1 == bridge.text().count('"kafka_unreachable"')
    assert "goodbye_unheard" not in bridge.text()


def test_a_daemon_ends_in_time_while_its_broker_is_away(bridge: Bridge, stream: Stream, broker: Broker) -> None:
    stream.write(cars(100))
    bridge.start("--rooms", "receiver")
    until(lambda: last(bridge.store) == 100, "it has read")
    broker.stop(signal.SIGKILL)
    try:
        until(lambda: bridge.health()["problems"] == ["kafka_unreachable"], "it is named")
        assert 0 == bridge.stop()
    finally:
        broker.start()
    bridge.start("--rooms", "receiver")
    stream.write(cars(100, 100))
    until(lambda: set(stream.written) == set(inbox(bridge.store)), "it reads on")
    assert {1} == set(inbox(bridge.store).values())


def resident(bridge: Bridge) -> int:
    """Return the memory of the process [bytes]."""
    assert bridge.process is not None
    assert bridge.process.popen is not None
    pages = Path(f"/proc/{bridge.process.popen.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_a_full_store_pauses_kafka_in_bounded_memory_until_there_is_room(bridge: Bridge, stream: Stream) -> None:
    bridge.configure(store={"max_size": "4MiB"})
    bridge.start("--rooms", "receiver")
    until(lambda: bridge.health()["kafka"]["partitions"], "it reads")
    before = resident(bridge)
    filler = "x" * (MIB * 3 // 4)
    letters: list[Letter] = [("vehicle.update", dump({"id": f"{n}", "f": filler})) for n in range(LOAD * 4 // 3)]
    stream.write(letters)
    until(lambda: bridge.health()["kafka"]["paused"] == ["watermark"], "the partitions are paused")
    topic = f"{stream.subscription}.vehicle.update"
    held = last(bridge.store)
    assert 0 < held < 24, "the store took what it had room for, and one batch"
    until(lambda: bridge.health()["kafka"]["lag"] == {topic: len(letters) - held}, "what waits is known")
    assert held == last(bridge.store)
    assert f'bridge_kafka_lag{{topic="{topic}"}} {len(letters) - held:.1f}' in bridge.metrics()
    assert "bridge_kafka_paused 1.0" in bridge.metrics()
    assert resident(bridge) - before < GROWTH
    assert 0 == bridge.stop()

    bridge.configure(store={"max_size": "1GiB"})
    bridge.start("--rooms", "receiver")
    until(lambda: set(stream.written) == set(inbox(bridge.store)), "there is room, and every record is held")
    assert {1} == set(inbox(bridge.store).values())


# ---- one member of a group ------------------------------------------------------------------------------------------


Join = Callable[..., Client]


@pytest.fixture
def join(bridge: Bridge, stream: Stream) -> Iterator[Join]:
    """Return what makes members of the bridge's group."""
    members: list[Client] = []

    def joined(**more: str) -> Client:
        settings = load(reading(bridge, stream, **more).configure(), environ={})
        [subscription] = settings.consumed()
        members.append(Client(properties(settings, subscription), [f"{stream.subscription}.vehicle.update"]))
        members[-1].ever = False
        return members[-1]

    yield joined
    for member in members:
        member.close()


@pytest.mark.parametrize(("reset", "waiting"), [("earliest", RECORDS), ("latest", 0)])
def test_the_lag_of_a_group_that_has_committed_nothing_is_what_it_will_read(
    stream: Stream, join: Join, reset: str, waiting: int
) -> None:
    stream.write(cars(RECORDS))
    member = join(offset_reset=reset)
    until(lambda: member.poll(1, 0.1) is not None and len(member.owned) == stream.partitions, "it owns all")
    assert [waiting] == list(member.lag().values())


def test_partitions_are_committed_before_they_move_and_before_their_owner_leaves(
    stream: Stream, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "COMMIT_EVERY_S", math.inf)
    stream.write(cars(RECORDS))
    one, read = join(), list[Record]()

    def all_read() -> bool:
        read.extend(one.poll(RECORDS, 0.1))
        return len(read) == RECORDS

    until(all_read, "it has read all")
    one.poll(1, 0.1, read)
    other, again = join(), list[Record]()

    def moved() -> bool:
        one.poll(1, 0.1)
        again.extend(other.poll(RECORDS, 0.1))
        return 0 < len(other.owned) < stream.partitions == len(one.owned | other.owned)

    until(moved, "the partitions are shared")
    until(lambda: not any(other.lag().values()), "nothing waits for the newcomer")
    one.close()
    group = f"moost-bridge-{stream.subscription}"
    assert (0, []) == (uncommitted(stream, group, lambda: list(stream.written)), again)


# ---- who one is -----------------------------------------------------------------------------------------------------


def oauth(issuer: Issuer, **more: str) -> dict[str, str]:
    return {
        "security": "sasl_plaintext",
        "mechanism": "oauthbearer",
        "token_url": f"{issuer.url}/token",
        "client_id": CLIENT,
        "client_secret": SECRET,
        "scope": SCOPE,
        **more,
    }


def simple(mechanism: str) -> dict[str, str]:
    user = {"client_id": USER, "client_secret": PASSWORD, "token_url": "", "scope": ""}
    return {"security": "sasl_plaintext", "mechanism": mechanism, **user}


def read(bridge: Bridge, stream: Stream, listener: str, settings: Mapping[str, str]) -> None:
    """Configure, start, and wait until everything is held."""
    reading(bridge, stream, bootstrap_servers=stream.broker.at(listener), **settings)
    bridge.start("--rooms", "receiver")
    until(lambda: set(stream.written) == set(inbox(bridge.store)), "every record is held")


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256"])
def test_a_user_with_a_password_reads(bridge: Bridge, stream: Stream, mechanism: str) -> None:
    stream.write(cars(RECORDS))
    read(bridge, stream, "simple", simple(mechanism))


def test_client_credentials_fetch_tokens_that_the_broker_verifies_within_tls(
    bridge: Bridge, stream: Stream, broker: Broker, issuer: Issuer
) -> None:
    stream.write(cars(RECORDS))
    before = issuer.asked
    read(bridge, stream, "tls", oauth(issuer, security="sasl_ssl", ca_file=str(broker.ca)))
    assert issuer.asked > before
    assert {SCOPE} == issuer.scopes


def test_a_token_is_renewed_before_it_ends(bridge: Bridge, stream: Stream, issuer: Issuer) -> None:
    issuer.lifetime_s = 6
    try:
        read(bridge, stream, "oauth", oauth(issuer))
        before = issuer.asked
        until(lambda: issuer.asked > before + 1, "two more tokens were fetched")
        stream.write(cars(RECORDS))
        until(lambda: set(stream.written) == set(inbox(bridge.store)), "records still come")
        until(lambda: not bridge.health()["problems"], "nothing is wrong")
    finally:
        issuer.lifetime_s = 3_600


def test_refused_credentials_are_named_and_new_ones_are_used_without_a_restart(
    bridge: Bridge, stream: Stream, issuer: Issuer, tmp_path: Path
) -> None:
    stream.write(cars(RECORDS))
    secret = tmp_path / "secret"
    secret.write_text("canary-of-a-wrong-secret")
    settings = {key: value for key, value in oauth(issuer).items() if key != "client_secret"}
    reading(bridge, stream, bootstrap_servers=stream.broker.at("oauth"), client_secret_file=str(secret), **settings)
    bridge.start("--rooms", "receiver")
    until(lambda: bridge.health()["problems"] == ["kafka_auth"], "the refusal is named")
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 1))
    assert {} == inbox(bridge.store)
    secret.write_text(SECRET)
    assert bridge.process is not None
    bridge.process.send(signal.SIGHUP)
    until(lambda: set(stream.written) == set(inbox(bridge.store)), "every record is held")
    until(lambda: not bridge.health()["problems"], "nothing is wrong any more")
    assert 1 == bridge.text().count('"event": "kafka_auth"'), "said once"
    assert 1 == bridge.text().count('"event": "kafka_connected"')


def test_check_online_asks_the_broker_and_joins_no_group(bridge: Bridge, stream: Stream, issuer: Issuer) -> None:
    reading(bridge, stream, bootstrap_servers=stream.broker.at("oauth"), **oauth(issuer))

    def said(**more: str) -> list[str]:
        lines = run("check", "--online", "--config", bridge.config, **more).stderr.splitlines()
        return [line for line in lines if not line.startswith("moost.base_url: ")]  # nobody is there

    assert [] == said()
    refused = said(BRIDGE_KAFKA__CLIENT_SECRET="canary-of-a-wrong-secret")
    assert [f"kafka.client_secret: the credentials of {stream.subscription} are refused"] == refused
    [port] = free_ports(1)
    away = said(BRIDGE_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    assert [f"kafka.bootstrap_servers: no answer from 127.0.0.1:{port}"] == away
    groups = {group.group_id for group in stream.broker.admin().list_consumer_groups().result().valid}
    assert f"moost-bridge-{stream.subscription}" not in groups


def test_a_wrong_password_is_named(bridge: Bridge, stream: Stream) -> None:
    wrong = {**simple("scram-sha-256"), "client_secret": "canary-of-a-wrong-password"}
    reading(bridge, stream, bootstrap_servers=stream.broker.at("simple"), **wrong)
    bridge.start("--rooms", "receiver")
    until(lambda: bridge.health()["problems"] == ["kafka_auth"], "the refusal is named")


def test_topics_that_are_not_for_us_keep_nobody_from_the_others(bridge: Bridge, stream: Stream) -> None:
    stream.create("meter.update")
    stream.broker.deny(ResourceType.TOPIC, f"{stream.subscription}.meter.update")
    stream.write(cars(RECORDS))
    read(bridge, stream, "simple", simple("plain"))
    until(lambda: "topics_missing" in bridge.text(), "it is told")
    assert f"{stream.subscription}.meter.update" in bridge.text()
    assert [] == bridge.health()["problems"]


@pytest.mark.parametrize("kind", [ResourceType.TOPIC, ResourceType.GROUP])
def test_a_topic_or_group_that_is_not_for_us_is_trouble(bridge: Bridge, stream: Stream, kind: ResourceType) -> None:
    topic, group = f"{stream.subscription}.vehicle.update", f"moost-bridge-{stream.subscription}"
    stream.broker.deny(kind, topic if kind is ResourceType.TOPIC else group)
    topics = ["{subscription}.vehicle.update"]
    reading(bridge, stream, bootstrap_servers=stream.broker.at("simple"), topics=topics, **simple("plain"))
    bridge.start("--rooms", "receiver")
    until(lambda: bridge.health()["problems"] == ["kafka_auth"], "the refusal is named")


# ---- the canary -----------------------------------------------------------------------------------------------------


def forms(secret: str) -> set[str]:
    """Return the spellings in which a secret could slip out."""
    pairs = {f"{name}:{secret}" for name in (CLIENT, USER)} | {f"{CLIENT}:{quote(secret, safe='')}"}
    encoded = {base64.b64encode(text.encode()).decode() for text in {secret, *pairs}}
    return {secret, quote(secret, safe=""), secret.encode().hex(), *encoded}


def test_neither_a_secret_nor_a_token_is_said_at_debug(bridge: Bridge, stream: Stream, issuer: Issuer) -> None:
    bridge.configure(logs={"level": "debug", "format": "json"})
    stream.write(cars(RECORDS))
    said = []
    for listener, settings in (
        ("oauth", oauth(issuer)),
        ("simple", simple("plain")),
        ("simple", simple("scram-sha-256")),
        ("oauth", {**oauth(issuer), "client_secret": "canary-of-a-wrong-secret"}),
        ("simple", {**simple("plain"), "client_secret": "canary-of-a-wrong-password"}),
    ):
        reading(bridge, stream, bootstrap_servers=stream.broker.at(listener), **settings)
        bridge.start("--rooms", "receiver")
        if "canary-of" in settings["client_secret"]:
            until(lambda: bridge.health()["problems"] == ["kafka_auth"], "the refusal is named")
        else:
            until(lambda: bridge.health()["kafka"]["partitions"], "it reads")
        said.append(str(bridge.health()) + bridge.metrics())
        assert 0 == bridge.stop()
    text = bridge.text() + "".join(said)
    assert '"logger": "kafka"' in text, "the library spoke through the log"
    assert "SASL" in text
    secrets = (SECRET, PASSWORD, "canary-of-a-wrong-secret", "canary-of-a-wrong-password")
    assert [] == [form for secret in secrets for form in forms(secret) if form in text]
    assert issuer.tokens
    assert [] == [part for token in issuer.tokens for part in token.split(".")[1:] if part in text]

"""Records of every topic through the real daemon and a real broker: accepted, told apart, settled."""

from tests.kafka.inboxes import inbox
from tests.kafka.stage import NAMES, Letter, Stream, cars, reading
from tests.life.stage import Bridge, ask, dump, until, vehicle

MAX_BODY = 4_096


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
    until(lambda: not bridge.health()["kafka"]["lag"], "no record waits")
    ledger = bridge.settled(owed=True)
    assert {"unreadable": 5, "unknown-topic": 1} == ledger["dead_letters"]
    assert (len(letters) + 1, 6, 0) == tuple(ledger["ledger"][fate] for fate in ("accepted", "dead", "parked"))
    assert {"partitions": 3 * (len(NAMES) + 1), "paused": [], "lag": {}} == ledger["kafka"]
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

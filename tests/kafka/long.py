"""The story at full length, by `make kafka`: 100,000 records of all topics, worked off by the daemons."""

from tests.kafka.inboxes import Inboxes
from tests.kafka.stage import NAMES, Stream
from tests.kafka.story import Story
from tests.life.stage import Bridge, until

COUNT = 100_000


def test_100_000_records_of_all_topics_survive_kills_restarts_and_rebalances(
    stream: Stream, pair: tuple[Bridge, Bridge], inboxes: Inboxes
) -> None:
    stream.create(*(name for name in NAMES if name not in stream.names))
    story = Story(stream, inboxes, pair, count=COUNT, rooms="receiver,worker,clock")
    story.run()
    assert ["daemon killed", "broker killed"] == story.told
    for bridge in pair:
        until(lambda: not bridge.health()["ledger"]["pending"], "the worker has seen to each", 600)  # noqa: B023
        ledger = bridge.health()["ledger"]
        assert ledger["accepted"] == ledger["settled"] + ledger["dead"] + ledger["parked"]
        assert ledger["dead"] > 0, "the poison ones"

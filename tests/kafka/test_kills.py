"""Kills and rebalances in the middle of a burst: every record is held, none twice in an inbox."""

from tests.kafka.inboxes import Inboxes, inbox, last
from tests.kafka.stage import NAMES, Stream, cars
from tests.kafka.story import Story, uncommitted
from tests.life.stage import Bridge, until

KILLS = 5  # one of so many hits between a record and its commit; nearly always the first does


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

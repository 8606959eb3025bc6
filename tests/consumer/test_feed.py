"""The way of one subscription's records: what is stored is committed, what is not comes again."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from structlog.testing import capture_logs

from bridge.consumer import feed as room
from bridge.source.kafka import Moved, Trouble, UnansweredError
from bridge.source.positions import Change, Start
from bridge.store.port import Census, StoreBroken, StoreUnavailable
from bridge.store.shares import Share
from tests.consumer.conftest import PLACE, TOPIC, House, Member, running, until

pytestmark = pytest.mark.anyio


async def test_an_offset_is_committed_only_after_its_record_is_stored(house: House) -> None:
    house.store.go_on.clear()
    house.topic.write(b'{"id": "1"}', b'{"id": "2"}')
    async with running(house):
        await until(lambda: house.store.waiting)
        assert 0 == house.topic.committed
        house.store.go_on.set()
        await until(lambda: house.topic.committed == 2)
    assert [b'{"id": "1"}', b'{"id": "2"}'] == house.store.bodies()
    assert (2, 1) == (house.count("bridge_messages_accepted_total"), len(house.wakes))


async def test_what_was_stored_last_is_committed_on_the_way_out(house: House) -> None:
    async with running(house):
        await until(lambda: house.member.polls)
        house.topic.write(b'{"id": "1"}')
        await until(lambda: house.store.taken)
    assert (1, True) == (house.topic.committed, house.member.closed)


async def test_a_record_that_comes_again_is_known_by_where_it_stands(house: House) -> None:
    house.topic.write(b'{"id": "1"}', b'{"id": "1"}')
    async with running(house):
        await until(lambda: house.topic.committed == 2)
    house.topic.committed, house.stop = 0, asyncio.Event()
    async with running(house):
        await until(lambda: house.topic.committed == 2)
    assert 2 == len(house.store.taken), "the same bytes at two offsets are two messages, at one offset they are one"
    assert 2 == house.count("bridge_messages_duplicate_total")
    assert "kafka cluster-1 sub-1.vehicle.update 0 1 1700000000000" == house.store.taken[1].message_id


async def test_a_closed_door_pauses_the_partitions_and_the_group_still_hears_of_us(house: House) -> None:
    house.gate.store = True
    house.topic.write(b'{"id": "1"}')
    async with running(house) as feed:
        await until(lambda: house.member.paused)
        before = house.member.polls
        await until(lambda: house.member.polls > before + 3)
        assert ([], "store") == (house.store.taken, feed.state.paused)
        house.gate.store = False
        await until(lambda: house.topic.committed == 1)
        assert ("", False) == (feed.state.paused, house.member.paused)


async def test_a_share_that_is_used_up_pauses_the_partitions_of_its_subscription(house: House) -> None:
    house.gate.alone, house.gate.store_share = False, 0.5
    house.gate.refresh(Census(shares={"sub-1": Share(pending=house.gate.max_size)}))
    house.topic.write(b'{"id": "1"}')
    async with running(house) as feed:
        await until(lambda: house.member.paused)
        assert ([], "store_share") == (house.store.taken, feed.state.paused)
        house.gate.refresh(Census(shares={"sub-2": Share(pending=house.gate.max_size)}))
        await until(lambda: house.topic.committed == 1)


async def test_no_more_than_one_batch_is_in_hand_while_the_door_is_closed(
    house: House, letters: Iterator[bytes]
) -> None:
    house.topic.write(*(next(letters) for _ in range(5 * room.BATCH)))
    house.store.trouble = StoreUnavailable("the disk is full")
    async with running(house) as feed:
        await until(lambda: house.store.refused > 3)
        assert room.BATCH == len(feed._hand)
        assert (0, True) == (house.topic.committed, house.gate.unwritable)
        house.store.trouble = None
        await until(lambda: house.topic.committed == 5 * room.BATCH)
    assert 5 * room.BATCH == len(set(house.store.bodies())) == len(house.store.taken)


async def test_a_broken_store_ends_the_room(house: House) -> None:
    house.store.trouble = StoreBroken("the file is damaged")
    house.topic.write(b"{}")
    feed = house.feed()
    with pytest.raises(StoreBroken):
        await asyncio.wait_for(feed.run(house.stop), 10)
    assert 0 == house.topic.committed


async def test_what_is_in_hand_of_a_partition_that_has_gone_is_dropped(house: House) -> None:
    house.topic.write(b'{"id": "1"}')
    house.store.trouble = StoreUnavailable("the disk is full")
    async with running(house) as feed:
        await until(lambda: house.store.refused)
        house.member.owned = frozenset()
        house.store.trouble = None
        await until(lambda: not feed._hand)
    assert ([], 0) == (house.store.taken, house.topic.committed)


async def test_a_client_that_gives_up_is_made_anew_and_nothing_is_lost(house: House, letters: Iterator[bytes]) -> None:
    house.topic.write(*(next(letters) for _ in range(3)))
    house.store.trouble = StoreUnavailable("the disk is full")
    async with running(house):
        await until(lambda: house.store.refused)
        house.member.broken = True  # with three records in hand
        await until(lambda: len(house.members) == 2)
        house.store.trouble = None
        await until(lambda: house.topic.committed == 3)
    assert (3, True) == (len(house.store.taken), house.members[0].closed)


async def test_other_credentials_are_used_at_once_and_the_same_ones_change_nothing(house: House) -> None:
    async with running(house) as feed:
        await until(lambda: house.member.polls)
        feed.change({"sasl.password": "old"})
        before = house.member.polls
        await until(lambda: house.member.polls > before + 2)
        assert 1 == len(house.members)
        feed.change({"sasl.password": "new"})
        await until(lambda: len(house.members) == 2)
        house.topic.write(b"{}")
        await until(lambda: house.topic.committed == 1)
    assert house.members[0].closed


async def test_trouble_is_said_once_when_it_begins_and_once_when_it_ends(house: House) -> None:
    with capture_logs() as lines:
        async with running(house) as feed:
            await until(lambda: house.member.polls)
            house.member.suspected, house.member.away = Trouble.AUTH, True
            await until(lambda: feed.state.trouble)
            before = house.member.asked
            await until(lambda: house.member.asked > before + 2)
            assert Trouble.AUTH == feed.state.trouble
            house.member.away, house.member.suspected = False, None
            await until(lambda: feed.state.trouble is None)
    assert ["kafka_auth", "kafka_connected"] == [line["event"] for line in lines if "kafka" in line["event"]]


async def test_what_the_client_learns_while_it_is_asked_counts(house: House) -> None:
    def refused(member: Member) -> str:
        member.suspected = Trouble.AUTH
        raise UnansweredError("nobody there")

    house.prepare = lambda member: setattr(member, "ask", partial(refused, member))
    async with running(house) as feed:
        await until(lambda: feed.state.trouble)
        assert Trouble.AUTH == feed.state.trouble


async def test_a_record_is_not_stored_before_its_cluster_is_known(house: House) -> None:
    def away(member: Member) -> None:
        member.away = True

    house.prepare = away
    house.topic.write(b"{}")
    async with running(house) as feed:
        await until(lambda: house.member.paused)
        assert ([], Trouble.UNREACHABLE) == (house.store.taken, feed.state.trouble)
        house.member.away = False
        await until(lambda: house.topic.committed == 1)
    assert ["kafka cluster-1 sub-1.vehicle.update 0 0 1700000000000"] == [
        arrival.message_id for arrival in house.store.taken
    ]


async def test_the_group_hears_of_us_while_the_store_takes_its_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "KEEP_ALIVE_S", 0.005)
    house.store.go_on.clear()
    house.topic.write(b"{}")
    async with running(house):
        await until(lambda: house.member.polls > 5)
        assert ([], 0) == (house.store.taken, house.topic.committed)
        house.store.go_on.set()
        await until(lambda: house.topic.committed == 1)
    assert not house.member.paused


async def test_a_goodbye_that_nobody_hears_holds_nobody_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "GOODBYE_S", 0.05)
    with capture_logs() as lines:
        async with running(house):
            await until(lambda: house.member.polls)
            house.member.deaf.clear()
    assert ["goodbye_unheard"] == [line["event"] for line in lines if line["log_level"] == "warning"]
    house.member.deaf.set()


async def test_topics_that_do_not_exist_are_said_once(house: House) -> None:
    with capture_logs() as lines:
        async with running(house) as feed:
            await until(lambda: house.member.polls)
            house.member.missing = frozenset({"sub-1.charger.update"})
            await until(lambda: feed._told)
            before = house.member.polls
            await until(lambda: house.member.polls > before + 50)
    assert [["sub-1.charger.update"]] == [line["topics"] for line in lines if line["event"] == "topics_missing"]


async def test_what_was_deleted_before_it_was_read_is_a_line_and_a_count(house: House) -> None:
    gap = Moved(PLACE, 3, Start(offset=200, lost=197, change=Change.DELETED))
    house.prepare = lambda member: setattr(member, "moved", [gap])
    with capture_logs() as lines:
        async with running(house) as feed:
            await until(lambda: feed.state.lost)
            house.member.moved = [gap, Moved(PLACE, 9, Start(offset=0, change=Change.RENEWED))]
            await until(lambda: not house.member.moved)
    about = {"subscription": "sub-1", "topic": TOPIC, "partition": 0, "why": "retention"}
    said = [line for line in lines if line["event"] == "kafka_records_lost"]
    assert [{**about, "event": "kafka_records_lost", "log_level": "error", "count": 197}] * 2 == said
    assert [(3, 200), (3, 200), (9, 0)] == [
        (line["left_at"], line["reads_from"]) for line in lines if line["event"] == "kafka_partition_moved"
    ]
    assert ({TOPIC: 394}, True) == (feed.state.lost, feed.state.lost_at is not None)


async def test_a_topic_that_has_gone_is_named_and_no_trouble_with_the_connection(house: House) -> None:
    with capture_logs() as lines:
        async with running(house) as feed:
            await until(lambda: house.member.polls)
            house.member.gone = frozenset({TOPIC})
            await until(lambda: feed.state.gone)
            assert feed.state.trouble is None
            house.member.gone = frozenset()
            await until(lambda: not feed.state.gone)
    assert [("kafka_topic_gone", TOPIC), ("kafka_topic_back", TOPIC)] == [
        (line["event"], line["topic"]) for line in lines if line["event"].startswith("kafka_topic_")
    ]


async def test_what_keeps_us_out_of_the_group_is_said_in_a_sentence(house: House) -> None:
    with capture_logs() as lines:
        async with running(house) as feed:
            await until(lambda: house.member.polls)
            house.member.reason, house.member.suspected = "the group is full", Trouble.GROUP
            await until(lambda: feed.state.trouble)
            assert (Trouble.GROUP, "the group is full") == (feed.state.trouble, feed.state.reason)
            house.member.reason, house.member.suspected = "", None
            await until(lambda: feed.state.trouble is None)
            assert "" == feed.state.reason
    assert ["the group is full"] == [line["reason"] for line in lines if line["event"] == "kafka_group"]


async def test_a_client_that_gives_up_again_and_again_is_a_problem(house: House) -> None:
    house.prepare = lambda member: setattr(member, "broken", True)
    async with running(house) as feed:
        await until(lambda: len(house.members) > 2)
        assert (Trouble.GROUP, "planted") == (feed.state.trouble, feed.state.reason)
        house.prepare = lambda _: None
        await until(lambda: feed.state.trouble is None)


async def test_that_a_group_has_read_before_is_remembered_by_the_store(house: House) -> None:
    async with running(house):
        await until(lambda: house.member.ever is False)
        house.topic.write(b'{"id": "1"}')
        await until(lambda: house.member.ever)
    assert ["kafka_read sub-1"] == list((await house.store.census()).notes)
    house.stop = asyncio.Event()
    async with running(house):
        await until(lambda: house.member.ever)
    assert {"kafka_read sub-1": 1} == (await house.store.census()).notes, "it is noted once"


async def test_nothing_is_begun_before_the_store_has_said_whether_the_group_has_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = house.store.census
    asked: list[None] = []

    async def unavailable() -> Census:
        asked.append(None)
        raise StoreUnavailable("the server is starting")

    monkeypatch.setattr(house.store, "census", unavailable)
    async with running(house):
        await until(lambda: len(asked) > 1)
        assert house.member.ever is None
        monkeypatch.setattr(house.store, "census", answer)
        await until(lambda: house.member.ever is False)

"""A lane against a MOOST that refuses what it is told to: laws over random lanes, without a wire."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bridge.config import LostReply as LostSetting
from bridge.core.effects import Event, SendEvents
from bridge.core.retry import (
    CallKind,
    Delivered,
    LostPolicy,
    LostReply,
    Outcome,
    PartlyWritten,
    Refused,
    ServerTrouble,
)
from bridge.core.vocabulary import DeadReason, DeviceType, EventType
from bridge.metrics import Metrics
from bridge.sender.lanes import Job, Planner, Run
from bridge.sender.limits import Gate
from bridge.sender.results import Result, Results
from bridge.sender.stuck import Stuck
from bridge.sink.classify import End, Failure, Reply
from bridge.sink.token import Token, TokenKeeper
from bridge.store.port import Lane, Owed, Settlement

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
METRICS = Metrics()
TOKEN = Token(value="t", renew_at=1e9, expires=1e9)


class NoSource:
    async def fetch_token(self) -> Reply | Failure:
        return Failure(end=End.NOT_SENT)


def planner(batch: int, on_lost: LostPolicy = LostPolicy.RESEND) -> Planner:
    return Planner(
        customer="656730be2bc9719e6e5ed51d",
        battery_soc=False,
        live_max_age=timedelta(minutes=30),
        historical_batch=batch,
        on_lost=on_lost,
    )


def event(value: int, *, old: bool) -> Event:
    return Event(
        device="gateway:b",
        name="Household",
        source=DeviceType.GATEWAY,
        type=EventType.ENERGY_CONSUMPTION,
        value=value,
        at=NOW - timedelta(hours=1 if old else 0),
    )


class Play:
    """Works a lane off; remembers what MOOST took and what died."""

    def __init__(self, rows: Sequence[Sequence[bool]], batch: int, dice: Random) -> None:
        self.dice = dice
        self.left: dict[int, list[Event]] = {}
        self.calls = 0
        self.taken: list[tuple[float, CallKind]] = []
        self.dead: list[float] = []
        self.batch = batch
        value = 0
        for number, kinds in enumerate(rows, start=1):
            self.left[number] = []
            for old in kinds:
                value += 1
                self.left[number].append(event(value, old=old))
        self.results = Results(
            gate=Gate(32, 0),
            tokens=TokenKeeper(NoSource(), "c"),
            stuck=Stuck(None, NOW),
            metrics=METRICS,
            on_lost=LostPolicy.RESEND,
            jitter=dice.random,
        )

    def lease(self, suspect: int) -> Run:
        owed = [
            Owed(id=number, call=SendEvents(building="b", events=tuple(events)), subscription="s", queued=NOW)
            for number, events in self.left.items()
            if events
        ]
        return Run.of(Lane(building="b", calls=tuple(owed), until=NOW), suspect)

    def write(self, settlements: Sequence[Settlement]) -> None:
        """Do as a store does."""
        for said in settlements:
            events = self.left[said.call_id]
            del events[: said.delivered]
            if said.buried is not None:
                count = len(events) if said.bury_all else 1
                self.dead += [each.value for each in events[:count]]
                del events[:count]

    def answer(self, job: Job, bad: set[int], trouble: float) -> Outcome:
        values = [each.value for number, count in job.parts for each in self.left[number][:count]]
        assert job.historical or len(values) == 1
        if self.dice.random() < trouble:
            if job.historical and self.dice.random() < 0.5:
                return PartlyWritten(status=500)
            return ServerTrouble(status=503) if self.dice.random() < 0.5 else LostReply()
        if bad & {int(value) for value in values}:
            return Refused(status=400, answer="bad")
        self.taken += [(value, job.kind) for value in values]
        return Delivered(status=201)

    def work_off(self, bad: set[int], trouble: float) -> None:
        plan, suspect = planner(self.batch), 0
        while any(self.left.values()):
            run = self.lease(suspect)
            suspect = 0
            while run.rows:
                self.calls += 1
                job = plan.next(run, NOW)
                assert isinstance(job, Job)
                assert job.count <= self.batch
                outcome = self.answer(job, bad, trouble)
                verdict = self.results.conclude(
                    Result(job=job, token=TOKEN, outcome=outcome, seconds=0.1, on_wire=1), NOW, 0.0
                )
                self.write(verdict.settlements)
                if verdict.back_at is not None:
                    suspect = run.suspect
                    break


seeds = st.integers(0, 2**32)
rows_of_events = st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=8)


@given(rows_of_events, st.integers(1, 20), st.sets(st.integers(1, 96), max_size=6), seeds)
def test_exactly_the_bad_events_die_and_all_others_arrive_once_in_order(
    rows: list[list[bool]], batch: int, bad: set[int], seed: int
) -> None:
    play = Play(rows, batch, Random(seed))  # noqa: S311
    total = sum(len(row) for row in rows)
    old = [kind for row in rows for kind in row]
    play.work_off(bad, trouble=0.0)

    expected = [value for value in range(1, total + 1) if value not in bad]
    assert expected == [value for value, _ in play.taken]
    assert sorted(bad & set(range(1, total + 1))) == sorted(play.dead)
    assert all((kind is CallKind.HISTORICAL) == old[int(value) - 1] for value, kind in play.taken)


@given(rows_of_events, st.integers(1, 20), st.sets(st.integers(1, 96), max_size=4), seeds)
def test_trouble_on_the_way_loses_nothing_and_keeps_the_order(
    rows: list[list[bool]], batch: int, bad: set[int], seed: int
) -> None:
    play = Play(rows, batch, Random(seed))  # noqa: S311
    total = sum(len(row) for row in rows)
    play.work_off(bad, trouble=0.3)

    assert [value for value in range(1, total + 1) if value not in bad] == [value for value, _ in play.taken]
    assert sorted(bad & set(range(1, total + 1))) == sorted(play.dead)


@given(st.integers(1, 500))
def test_one_bad_event_of_500_costs_few_calls(bad: int) -> None:
    play = Play([[True] * 500], 500, Random(1))  # noqa: S311
    play.work_off({bad}, trouble=0.0)

    assert [bad] == play.dead
    assert play.calls <= 2 * 9 + 2


def test_every_way_to_resolve_a_lost_reply_is_known_to_the_core() -> None:
    assert {each.value for each in LostSetting} == {each.value for each in LostPolicy}


def test_dead_reasons_of_the_sender_are_words_of_the_contract() -> None:
    assert {"rule", "rejected", "stuck", "fault", "in-doubt"} <= {each.value for each in DeadReason}

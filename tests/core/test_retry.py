"""The law of retries (R3, R4, R6), as plays and as laws over random cases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.retry import (
    AlreadyThere,
    Bisect,
    Bury,
    CallKind,
    Case,
    Delivered,
    Forbidden,
    LostPolicy,
    LostReply,
    NotSent,
    Outcome,
    PartlyWritten,
    Pause,
    Refused,
    RenewToken,
    Repair,
    RetryAt,
    ServerTrouble,
    Settle,
    Throttled,
    Unauthorized,
    backoff,
    decide,
)
from bridge.core.vocabulary import DeadReason

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def case(**changes: object) -> Case:
    known: dict[str, Any] = {"kind": CallKind.LIVE, "now": NOW, "jitter": 1.0, **changes}
    return Case(**known)


def failing(**changes: object) -> Case:
    """A call that has failed for an hour while another building was served a minute ago."""
    return case(**{"attempts": 100, "first_failed": NOW - HOUR, "others_served": NOW - timedelta(minutes=1), **changes})


moments = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)).map(lambda age: NOW - age)
cases = st.builds(
    Case,
    kind=st.sampled_from(CallKind),
    now=st.just(NOW),
    jitter=st.floats(0, 1),
    count=st.integers(1, 500),
    attempts=st.integers(0, 10**6),
    first_failed=st.none() | moments,
    renewed=st.booleans(),
    repaired=st.booleans(),
    others_served=st.none() | moments,
    working_since=st.none() | moments,
    second_chance=st.booleans(),
    on_lost=st.sampled_from(LostPolicy),
)
delays = st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(minutes=50))
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Delivered, status=st.just(201)),
    st.builds(AlreadyThere, status=st.just(409)),
    st.builds(Refused, status=st.just(400), answer=st.text()),
    st.builds(Unauthorized),
    st.builds(Forbidden, answer=st.text()),
    st.builds(Throttled, delay=delays),
    st.builds(ServerTrouble, status=st.just(503), delay=delays),
    st.builds(PartlyWritten, status=st.just(500)),
    st.builds(NotSent),
    st.builds(LostReply, timeout=st.booleans()),
)


class TestLaws:
    @given(cases)
    def test_the_wait_is_at_most_30_s_and_the_first_at_most_1_s(self, each: Case) -> None:
        assert timedelta(0) < backoff(each) <= timedelta(seconds=30)
        assert backoff(case(jitter=each.jitter)) <= timedelta(seconds=1)

    @given(outcomes, cases)
    def test_only_a_success_settles(self, outcome: Outcome, each: Case) -> None:
        assert isinstance(outcome, Delivered | AlreadyThere) == isinstance(decide(outcome, each), Settle)

    @given(outcomes, cases)
    def test_nothing_is_buried_by_age_or_attempts_while_nobody_else_is_served(
        self, outcome: Outcome, each: Case
    ) -> None:
        alone = case(kind=each.kind, count=each.count, attempts=each.attempts, first_failed=each.first_failed)
        decision = decide(outcome, alone)

        assert isinstance(outcome, Refused) or not isinstance(decision, Bury)

    @given(outcomes, cases)
    def test_a_retry_is_never_in_the_past_and_honours_the_delay(self, outcome: Outcome, each: Case) -> None:
        decision = decide(outcome, each)

        if isinstance(decision, RetryAt):
            asked = outcome.delay if isinstance(outcome, Throttled | ServerTrouble) else None
            assert decision.at > NOW
            assert decision.at - NOW >= (asked or timedelta(0))

    @given(cases)
    def test_waits_never_shrink_with_attempts(self, each: Case) -> None:
        waits = [backoff(case(attempts=attempts, jitter=each.jitter)) for attempts in range(12)]

        assert sorted(waits) == waits

    @given(outcomes, cases)
    def test_a_whole_state_is_never_held_in_doubt(self, outcome: Outcome, each: Case) -> None:
        decision = decide(outcome, each)

        if isinstance(decision, Bury) and decision.reason is DeadReason.IN_DOUBT:
            assert each.on_lost is LostPolicy.HOLD
            assert isinstance(outcome, PartlyWritten) or not each.idempotent


class TestWaits:
    def test_waits_double_to_30_s_while_others_are_served(self) -> None:
        waits = [backoff(failing(attempts=attempts)).total_seconds() for attempts in range(7)]

        assert [1, 2, 4, 8, 16, 30, 30] == waits

    def test_waits_stay_at_5_s_while_nobody_is_served(self) -> None:
        waits = [backoff(case(attempts=attempts, first_failed=NOW)).total_seconds() for attempts in range(5)]

        assert [1, 2, 4, 5, 5] == waits

    def test_chance_takes_off_at_most_half(self) -> None:
        assert timedelta(seconds=0.5) == backoff(case(jitter=0.0))


class TestRefusals:
    def test_a_refused_event_first_asks_for_building_and_list(self) -> None:
        assert Repair() == decide(Refused(status=400, answer="no"), case())

    def test_a_refused_event_is_dead_after_the_repair_with_the_answer(self) -> None:
        expected = Bury(reason=DeadReason.REJECTED, detail="MOOST answered 400", answer="no")

        assert expected == decide(Refused(status=400, answer="no"), case(repaired=True))

    def test_a_refused_array_is_halved_after_the_repair(self) -> None:
        assert Bisect() == decide(
            Refused(status=400, answer=""), case(kind=CallKind.HISTORICAL, count=2, repaired=True)
        )

    @pytest.mark.parametrize("status", [400, 404])
    @pytest.mark.parametrize("kind", [CallKind.CHANGE, CallKind.DEVICES])
    def test_a_refused_change_or_list_asks_for_the_building_first(self, kind: CallKind, status: int) -> None:
        assert Repair() == decide(Refused(status=status, answer=""), case(kind=kind))

    @pytest.mark.parametrize("repaired", [True, False])
    @pytest.mark.parametrize("kind", [CallKind.CREATE, CallKind.CHANGE, CallKind.DEVICES])
    def test_a_refused_whole_state_is_dead(self, kind: CallKind, *, repaired: bool) -> None:
        decision = decide(Refused(status=400, answer=""), case(kind=kind, repaired=repaired))

        if repaired or kind is CallKind.CREATE:
            assert isinstance(decision, Bury)
            assert DeadReason.REJECTED is decision.reason


class TestCredentials:
    def test_the_first_401_renews_the_token(self) -> None:
        assert RenewToken() == decide(Unauthorized(), case())

    def test_a_second_401_pauses_and_counts_no_attempt(self) -> None:
        assert Pause(at=NOW + timedelta(seconds=1), failed=False) == decide(Unauthorized(), case(renewed=True))

    def test_a_403_pauses(self) -> None:
        assert Pause(at=NOW + timedelta(seconds=1), failed=True) == decide(Forbidden(answer=""), case())


class TestLostReplies:
    @pytest.mark.parametrize("policy", [LostPolicy.RESEND, LostPolicy.HISTORICAL])
    def test_a_lost_reply_is_sent_again(self, policy: LostPolicy) -> None:
        assert RetryAt(at=NOW + timedelta(seconds=1)) == decide(LostReply(), case(on_lost=policy))

    def test_a_lost_event_is_held_for_the_operator_if_he_wants_to(self) -> None:
        decision = decide(LostReply(), case(on_lost=LostPolicy.HOLD))

        assert isinstance(decision, Bury)
        assert DeadReason.IN_DOUBT is decision.reason

    def test_a_call_that_was_not_sent_is_never_held(self) -> None:
        assert RetryAt(at=NOW + timedelta(seconds=1)) == decide(NotSent(), case(on_lost=LostPolicy.HOLD))

    def test_a_partly_written_array_goes_again_in_halves(self) -> None:
        decision = decide(PartlyWritten(status=500), case(kind=CallKind.HISTORICAL, count=10))

        assert RetryAt(at=NOW + timedelta(seconds=1), smaller=True) == decision


class TestStuck:
    def test_an_hour_of_trouble_while_others_are_served_steps_aside(self) -> None:
        decision = decide(ServerTrouble(status=500), failing())

        assert isinstance(decision, Bury)
        assert DeadReason.STUCK is decision.reason

    def test_timeouts_count_as_trouble(self) -> None:
        assert isinstance(decide(LostReply(timeout=True), failing()), Bury)

    @pytest.mark.parametrize(
        "changes",
        [
            {"first_failed": NOW - HOUR + timedelta(seconds=1)},
            {"attempts": 9},
            {"others_served": None},
            {"others_served": NOW - timedelta(minutes=31)},
            {"working_since": NOW - timedelta(minutes=59)},
        ],
        ids=["not an hour", "hardly tried", "nobody served", "nobody served lately", "the platform was down"],
    )
    def test_otherwise_it_goes_on_trying(self, changes: dict[str, Any]) -> None:
        assert isinstance(decide(ServerTrouble(status=500), failing(**changes)), RetryAt)

    def test_a_second_chance_is_one_try(self) -> None:
        decision = decide(ServerTrouble(status=500), case(second_chance=True, others_served=NOW))

        assert isinstance(decision, Bury)
        assert DeadReason.STUCK is decision.reason

    def test_a_call_that_is_never_sent_is_not_stuck(self) -> None:
        assert isinstance(decide(NotSent(), failing()), RetryAt)


class TestThrottled:
    def test_a_throttled_call_waits_as_asked_and_has_not_failed(self) -> None:
        decision = decide(Throttled(delay=timedelta(seconds=17)), case())

        assert RetryAt(at=NOW + timedelta(seconds=17), throttled=True) == decision

    def test_what_the_platform_says_never_shortens_the_doubling_wait(self) -> None:
        for outcome in (Throttled(delay=timedelta(seconds=1)), ServerTrouble(status=503, delay=timedelta(seconds=1))):
            decision = decide(outcome, case(attempts=2))

            assert isinstance(decision, RetryAt)
            assert NOW + timedelta(seconds=4) == decision.at

    def test_no_call_steps_aside_because_the_platform_was_busy(self) -> None:
        assert isinstance(decide(Throttled(delay=None), failing()), RetryAt)

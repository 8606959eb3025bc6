"""What an answer means."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.retry import (
    AlreadyThere,
    CallKind,
    Delivered,
    Forbidden,
    LostReply,
    NotSent,
    Outcome,
    PartlyWritten,
    Refused,
    ServerTrouble,
    Throttled,
    Unauthorized,
)
from bridge.sink.classify import ANSWER_LENGTH, Failure, Reply, answer, classify, retry_after

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LIVE, ARRAY, CREATE, CHANGE, DEVICES = (
    CallKind.LIVE,
    CallKind.HISTORICAL,
    CallKind.CREATE,
    CallKind.CHANGE,
    CallKind.DEVICES,
)


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (LIVE, 201, Delivered(status=201)),
        (ARRAY, 200, Delivered(status=200)),
        (CREATE, 201, Delivered(status=201)),
        (CREATE, 409, AlreadyThere(status=409)),
        (CHANGE, 409, Refused(status=409, answer="")),
        (LIVE, 400, Refused(status=400, answer="")),
        (ARRAY, 413, Refused(status=413, answer="")),
        (DEVICES, 404, Refused(status=404, answer="")),
        (LIVE, 404, ServerTrouble(status=404)),
        (CREATE, 404, ServerTrouble(status=404)),
        (LIVE, 401, Unauthorized()),
        (LIVE, 403, Forbidden(answer="")),
        (LIVE, 429, Throttled(delay=None)),
        (LIVE, 408, ServerTrouble(status=408)),
        (LIVE, 301, ServerTrouble(status=301)),
        (LIVE, 500, ServerTrouble(status=500)),
        (ARRAY, 500, PartlyWritten(status=500)),
        (ARRAY, 503, ServerTrouble(status=503)),
    ],
)
def test_a_status_means(kind: CallKind, status: int, expected: Outcome) -> None:
    assert expected == classify(kind, Reply(status=status), NOW)


def test_no_answer_means() -> None:
    assert NotSent() == classify(LIVE, Failure.NOT_SENT, NOW)
    assert LostReply() == classify(LIVE, Failure.LOST, NOW)
    assert LostReply(timeout=True) == classify(LIVE, Failure.TIMEOUT, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17", 17),
        (" 2 ", 2),
        ("0", None),
        ("-5", None),
        ("0.0", None),
        ("86400", 3600),
        ("1e400", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), None),
        (format_datetime(NOW, usegmt=True), None),
        ("Mon, 01 Jun 2026 12:00:10 -0000", 10),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)

    assert expected == retry_after(Reply(status=429, headers={"retry-after": text}), NOW)
    assert Throttled(delay=expected) == classify(LIVE, Reply(status=429, headers={"retry-after": text}), NOW)


@given(st.text())
def test_no_retry_after_raises_or_waits_for_ever(text: str) -> None:
    delay = retry_after(Reply(status=503, headers={"retry-after": text}), NOW)

    assert delay is None or timedelta(0) <= delay <= timedelta(hours=1)


@given(st.binary(max_size=5000))
def test_an_answer_is_kept_readable_and_cut(body: bytes) -> None:
    kept = answer(Reply(status=400, body=body))

    assert len(kept) <= ANSWER_LENGTH
    assert kept == "" or kept.isprintable()


@given(st.sampled_from(CallKind), st.integers(100, 599))
def test_every_status_means_something(kind: CallKind, status: int) -> None:
    outcome = classify(kind, Reply(status=status), NOW)

    assert (200 <= status < 300) == isinstance(outcome, Delivered)

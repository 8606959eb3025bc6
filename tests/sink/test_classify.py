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
from bridge.logs import Redaction
from bridge.sink.classify import ANSWER_LENGTH, End, Failure, Reply, answer, classify, retry_after

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
        (LIVE, 404, ServerTrouble(status=404, cause="status 404: there is nothing at this address")),
        (CREATE, 404, ServerTrouble(status=404, cause="status 404: there is nothing at this address")),
        (LIVE, 401, Unauthorized()),
        (LIVE, 403, Forbidden(answer="")),
        (LIVE, 429, Throttled(delay=None)),
        (LIVE, 408, ServerTrouble(status=408, cause="status 408")),
        (LIVE, 301, ServerTrouble(status=301, cause="status 301: a redirect to another address")),
        (LIVE, 407, ServerTrouble(status=407, cause="the proxy says 407: it wants other credentials")),
        (LIVE, 500, ServerTrouble(status=500, cause="status 500")),
        (ARRAY, 500, PartlyWritten(status=500)),
        (ARRAY, 503, ServerTrouble(status=503, cause="status 503")),
    ],
)
def test_a_status_means(kind: CallKind, status: int, expected: Outcome) -> None:
    assert expected == classify(kind, Reply(status=status), NOW)


PAGE = b"\xef\xbb\xbf\r\n <!DOCTYPE html><html><body>We are back soon</body></html>"
WEB_PAGE = "a web page instead of JSON"


class TestBodies:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206])
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" \r\n",
            b"{}",
            b'\xef\xbb\xbf{"id": 1}',
            b"true",
            b'{"n": ' + b"9" * 5000 + b"}",
            b"[" * 100_000 + b"]" * 100_000,
            b'{"city": "Z\xfcrich"}',
            b'{"value": NaN}',
        ],
        ids=["empty", "blank", "object", "byte order mark", "word", "long number", "deep", "Latin-1", "NaN"],
    )
    @pytest.mark.parametrize("kind", CallKind)
    def test_a_success_with_json_or_nothing_is_delivered(self, kind: CallKind, status: int, body: bytes) -> None:
        assert Delivered(status=status) == classify(kind, Reply(status=status, body=body), NOW)

    @pytest.mark.parametrize("status", [200, 201, 203])
    @pytest.mark.parametrize(
        ("body", "what"),
        [(PAGE, WEB_PAGE), (b"<?xml version='1.0'?><a/>", WEB_PAGE), (b"OK", "a body that is not JSON")],
    )
    @pytest.mark.parametrize("kind", CallKind)
    def test_a_success_with_anything_else_is_trouble(self, kind: CallKind, status: int, body: bytes, what: str) -> None:
        outcome = classify(kind, Reply(status=status, body=body), NOW)

        assert isinstance(outcome, ServerTrouble)
        assert f"status {status} with {what}" == outcome.cause

    @pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
    @pytest.mark.parametrize("kind", [LIVE, ARRAY, CHANGE, DEVICES])
    def test_a_web_page_is_no_refusal(self, kind: CallKind, status: int) -> None:
        outcome = classify(kind, Reply(status=status, body=PAGE), NOW)

        assert isinstance(outcome, ServerTrouble)
        assert f"status {status} with a web page" == outcome.cause

    def test_too_large_is_too_large_whoever_says_so(self) -> None:
        assert isinstance(classify(ARRAY, Reply(status=413, body=PAGE), NOW), Refused)

    def test_a_body_that_cannot_be_read_is_named(self) -> None:
        reply = Reply(status=201, flaw="a compressed body (br), which was not asked for")

        assert ServerTrouble(status=201, cause=f"status 201 with {reply.flaw}") == classify(LIVE, reply, NOW)


def test_an_answer_is_kept_without_secrets_also_where_it_is_cut() -> None:
    secret = "canary-secret-0123456789"
    body = b'{"error":"' + b"x" * (ANSWER_LENGTH - 20) + secret.encode() + b'"}'
    outcome = classify(LIVE, Reply(status=400, body=body), NOW, Redaction([secret]).text)

    assert isinstance(outcome, Refused)
    assert "canary" not in outcome.answer
    assert ANSWER_LENGTH >= len(outcome.answer) > ANSWER_LENGTH - 20


def test_no_answer_means() -> None:
    assert NotSent() == classify(LIVE, Failure(end=End.NOT_SENT), NOW)
    assert LostReply() == classify(LIVE, Failure(end=End.LOST), NOW)
    assert LostReply(timeout=True) == classify(LIVE, Failure(end=End.TIMEOUT), NOW)


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

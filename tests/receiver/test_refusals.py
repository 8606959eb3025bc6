"""What the operator's log says of refused requests: whose, which status, which check; never what was offered."""

import base64
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bridge import logs
from bridge.config import Subscription
from bridge.metrics import Metrics
from bridge.receiver.refusals import Refusals
from bridge.source.signature import Headers, verifier
from bridge.source.unproved import flaw

NOW = 1_780_000_000.0
WHSEC = "whsec_" + base64.b64encode(b"a webhook secret of 24 b").decode()
STANDARD = Subscription(id="s", secrets=(WHSEC,))
HMAC = Subscription(id="h", auth="hmac", header="X-Sig", prefix="sha256=", secrets=("canary",))
BEARER = Subscription(id="t", auth="bearer", secrets=("canary",))
BASIC = Subscription(id="b", auth="basic", secrets=("a:canary",))


def signed(**changes: str) -> Headers:
    whole = {"webhook_id": "m", "webhook_timestamp": f"{NOW:.0f}", "webhook_signature": "v1,AAAA", **changes}
    return {name.replace("_", "-").encode(): value.encode() for name, value in whole.items() if value}


@pytest.mark.parametrize(
    ("subscription", "headers", "check"),
    [
        (STANDARD, {}, "no header webhook-signature"),
        (STANDARD, signed(), "it fits none of the secrets"),
        (STANDARD, signed(webhook_id=""), "no header webhook-id"),
        (STANDARD, signed(webhook_timestamp=""), "no header webhook-timestamp"),
        (STANDARD, signed(webhook_timestamp="soon"), "webhook-timestamp is no time"),
        (STANDARD, signed(webhook_timestamp="9" * 30), "webhook-timestamp is no time"),
        (STANDARD, signed(webhook_timestamp="1779999000"), "its time is more than 5 min in the past"),
        (STANDARD, signed(webhook_timestamp="1780001000"), "its time is more than 5 min in the future"),
        (STANDARD, {b"svix-signature": b"v1,A", b"svix-id": b"m"}, "no header svix-timestamp"),
        (HMAC, {}, "no header x-sig"),
        (HMAC, {b"x-sig": b"sha256=00"}, "it fits none of the secrets"),
        (BEARER, {}, "no header authorization"),
        (BEARER, {b"authorization": b"Basic Y2FuYXJ5"}, "its authorization is not bearer"),
        (BEARER, {b"authorization": b"Bearer wrong"}, "it fits none of the secrets"),
        (BASIC, {b"authorization": b"bearer x"}, "its authorization is not basic"),
    ],
)
def test_the_check_that_failed_is_named(subscription: Subscription, headers: Headers, check: str) -> None:
    verify = verifier(subscription)
    assert not verify(headers, b"{}", NOW)
    assert check == flaw([verify], headers, NOW)


def test_where_nobody_is_named_no_check_of_one_is() -> None:
    assert "it fits no subscription" == flaw([verifier(BEARER), verifier(BASIC)], {b"authorization": b"Bearer x"}, NOW)
    assert "no header authorization" == flaw([verifier(BEARER), verifier(BASIC)], {}, NOW)


@pytest.fixture
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.handlers.clear()  # pytest brings its own for each phase
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("as_before")
def test_a_flood_of_refusals_is_a_line_and_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    metrics = Metrics()
    metrics.know(["acme"])
    refusals = Refusals(metrics)
    for _ in range(5_000):
        refusals.count(401, "it fits none of the secrets", "acme")
        refusals.count(404, "no such subscription")
    refusals.tell()
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [("request_refused", "acme", 401, 1), ("request_refused", None, 404, 1)] == [
        (line["event"], line.get("subscription"), line["status"], line["count"]) for line in told
    ]
    said = metrics.render().decode()
    assert 'bridge_subscription_refused_total{status="401",subscription="acme"} 5000.0' in said
    assert 'bridge_requests_refused_total{status="404"} 5000.0' in said


def test_what_is_counted_by_subscription_or_status_is_there_from_the_start() -> None:
    metrics = Metrics()
    metrics.know(["acme", "other"])
    metrics.heard("acme", 3)
    metrics.heard("stranger", 1)
    said = metrics.render().decode()
    for line in (
        'bridge_subscription_messages_total{subscription="acme"} 3.0',
        'bridge_subscription_messages_total{subscription="other"} 0.0',
        'bridge_requests_refused_total{status="503"} 0.0',
        'bridge_subscription_silent_seconds{subscription="other"} 0.0',
    ):
        assert line in said.splitlines()
    assert "stranger" not in said

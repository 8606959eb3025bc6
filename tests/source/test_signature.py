"""Five ways to prove who sent it; the signer of the tests is the public library, not our own lines."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from bridge.config import Subscription
from bridge.source import signature
from bridge.source.signature import PlainHmac, UnusableSecretError, verifier

NOW = datetime(2026, 6, 15, 10, 0, tzinfo=UTC)
BODY = b'{"id": "caf\xc3\xa9"}'
OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
AUTHS: list[dict[str, Any]] = [
    {"auth": "standard-webhooks", "secrets": [OLD, NEW]},
    {"auth": "hmac", "secrets": ["old key", "new key"], "header": "x-sig"},
    {"auth": "hmac", "secrets": ["old key"], "header": "x-sig", "encoding": "base64", "prefix": "sha256="},
    {"auth": "bearer", "secrets": ["old token", "new-token"]},
    {"auth": "basic", "secrets": ["me:päss", "me:new:password"]},
]


def subscription(**settings: object) -> Subscription:
    return Subscription.model_validate({"id": "sub-1", **settings})


def verified(settings: dict[str, Any], headers: dict[str, str], body: bytes = BODY, now: datetime = NOW) -> bool:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    return verifier(subscription(**settings))(raw, body, now.timestamp())


def signed(secret: str, body: bytes = BODY, at: datetime = NOW, brand: str = "webhook") -> dict[str, str]:
    return {
        f"{brand}-id": "msg_1",
        f"{brand}-timestamp": str(int(at.timestamp())),
        f"{brand}-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


STANDARD = AUTHS[0]


@pytest.mark.parametrize("secret", [OLD, NEW])
@pytest.mark.parametrize("brand", ["webhook", "svix"])
def test_what_the_library_signs_is_verified_with_any_of_the_secrets(secret: str, brand: str) -> None:
    assert verified(STANDARD, signed(secret, brand=brand))


def test_another_secret_another_body_another_id_are_not_verified() -> None:
    headers = signed(OLD)
    assert not verified({"auth": "standard-webhooks", "secrets": [NEW]}, headers)
    assert not verified(STANDARD, headers, body=BODY + b" ")
    assert not verified(STANDARD, headers | {"webhook-id": "msg_2"})
    assert not verified(STANDARD, headers | {"webhook-timestamp": str(int(NOW.timestamp()) + 1)})


@pytest.mark.parametrize(
    ("apart", "expected"),
    [(-300, True), (-301, False), (300, True), (301, False), (-86_400, False)],
)
def test_a_signed_time_may_be_five_minutes_off_and_no_more(apart: int, expected: bool) -> None:  # noqa: FBT001
    assert expected == verified(STANDARD, signed(OLD, at=NOW + timedelta(seconds=apart)))


def test_one_good_signature_in_a_list_is_enough() -> None:
    good = signed(OLD)["webhook-signature"]
    listed = f"v1a,{'A' * 86} v1,{'B' * 43}= {good} v2,x"
    assert verified(STANDARD, signed(OLD) | {"webhook-signature": listed})
    assert not verified(STANDARD, signed(OLD) | {"webhook-signature": listed.replace(good, "")})


@pytest.mark.parametrize(
    "damage",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,*** "},
        {"webhook-signature": "é"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "1_781_517_600"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1781517600.0"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": "²"},
        {"webhook-id": ""},
    ],
)
def test_a_malformed_signature_is_not_verified(damage: dict[str, str]) -> None:
    assert not verified(STANDARD, signed(OLD) | damage)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_part_is_not_verified(missing: str) -> None:
    headers = signed(OLD)
    del headers[missing]
    assert not verified(STANDARD, headers)


def test_a_secret_without_its_prefix_or_padding_is_the_same_secret() -> None:
    bare = OLD.removeprefix("whsec_").rstrip("=")
    assert verified({"auth": "standard-webhooks", "secrets": [bare]}, signed(OLD))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_***", "whsec_ä"])
def test_a_secret_that_is_no_base64_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(UnusableSecretError) as caught:
        verifier(subscription(auth="standard-webhooks", secrets=[secret]))
    assert secret not in str(caught.value).removesuffix("whsec_ followed by base64")


# ---- plain HMAC, in the forms that clouds use -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("prefix", ["", "sha256="])
def test_every_form_of_plain_hmac_is_verified(algorithm: str, encoding: str, prefix: str) -> None:
    settings = {
        "auth": "hmac",
        "secrets": ["old", "n€w"],
        "header": "X-Signature",
        "algorithm": algorithm,
        "encoding": encoding,
        "prefix": prefix,
    }
    digest = hmac.new("n€w".encode(), BODY, algorithm).digest()
    text = prefix + (digest.hex() if encoding == "hex" else base64.b64encode(digest).decode())
    assert verified(settings, {"x-signature": text})
    assert not verified(settings, {"x-signature": text}, body=b"other")
    assert not verified(settings, {"x-signature": text[:-1]})
    assert not verified(settings, {"x-signature": ""})
    assert not verified(settings, {"x-other": text})


def test_hex_may_be_upper_case_and_a_missing_prefix_is_not_forgiven() -> None:
    enode = {"auth": "hmac", "secrets": ["key"], "header": "x-enode-signature", "algorithm": "sha1", "prefix": "sha1="}
    digest = hmac.new(b"key", BODY, hashlib.sha1).hexdigest()
    assert verified(enode, {"x-enode-signature": f"sha1={digest.upper()}"})
    assert not verified(enode, {"x-enode-signature": digest})
    assert not verified(enode, {"x-enode-signature": f"sha2={digest}"})


def test_a_challenge_that_is_not_signed_is_not_answered() -> None:
    """An answer is a signature: given to strangers, it would open the door to whatever they call a challenge."""
    scheme = PlainHmac(["key"], header="sc-signature", algorithm="sha256", encoding="hex", prefix="")
    body = b'{"eventType":"VERIFY","data":{"challenge":"{}"}}'
    signature = hmac.new(b"key", body, "sha256").hexdigest().encode()
    assert scheme.answer({b"sc-signature": signature}, body)
    forgery = hmac.new(b"key", b"{}", "sha256").hexdigest().encode()
    for headers in ({}, {b"sc-signature": b""}, {b"sc-signature": forgery}, {b"sc-signature": signature[:-1]}):
        assert scheme.answer(headers, body) is None
        assert not scheme(headers, body, 0.0)
    other = PlainHmac(["key"], header="sc-signature", algorithm="sha512", encoding="hex", prefix="")
    assert other.answer({b"sc-signature": hmac.new(b"key", body, "sha512").hexdigest().encode()}, body) is None


# ---- bearer, basic, none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer tok-2", True),
        ("bearer   tok-1 ", True),
        ("Bearer tok-3", False),
        ("Bearer tok-1x", False),
        ("Bearer", False),
        ("Basic tok-1", False),
        ("tok-1", False),
        ("Bearer é", False),
    ],
)
def test_a_bearer_token_must_be_one_of_ours(header: str, expected: bool) -> None:  # noqa: FBT001
    assert expected == verified({"auth": "bearer", "secrets": ["tok-1", "tok-2"]}, {"authorization": header})


def test_basic_takes_user_and_password_together() -> None:
    settings = {"auth": "basic", "secrets": ["me:päss:word"]}
    right = base64.b64encode("me:päss:word".encode()).decode()
    wrong = base64.b64encode(b"me:other").decode()
    assert verified(settings, {"authorization": f"Basic {right}"})
    assert not verified(settings, {"authorization": f"Basic {wrong}"})
    assert not verified(settings, {"authorization": f"Bearer {right}"})
    assert not verified(settings, {"authorization": "Basic !"})


def test_none_lets_everybody_in() -> None:
    assert verified({"auth": "none"}, {})


@pytest.mark.parametrize("settings", AUTHS, ids=[str(each["auth"]) for each in AUTHS])
def test_a_request_that_proves_nothing_is_not_verified(settings: dict[str, Any]) -> None:
    assert not verified(settings, {})


NAMES = ["webhook-id", "webhook-timestamp", "webhook-signature", "svix-signature", "x-sig", "authorization"]


@given(
    settings=st.sampled_from(AUTHS),
    headers=st.dictionaries(st.sampled_from([name.encode() for name in NAMES]), st.binary(max_size=60)),
    body=st.binary(max_size=50),
)
def test_no_header_makes_a_verifier_raise_or_agree_by_chance(
    settings: dict[str, Any], headers: dict[bytes, bytes], body: bytes
) -> None:
    assert verifier(subscription(**settings))(headers, body, NOW.timestamp()) is False


def test_nothing_proves_that_a_request_comes_from_who_sends_none() -> None:
    assert not verified({"auth": "kafka"}, {})
    assert not verified({"auth": "kafka"}, {"authorization": "Bearer x"})


def test_thousands_of_signatures_are_counted_and_not_listed_for_each_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a hundred subscriptions a header of 32 KiB cost 70 ms, as it was taken apart once for each."""

    class Listed:
        @staticmethod
        def findall(_: bytes) -> list[bytes]:
            pytest.fail("they are listed")

    monkeypatch.setattr(signature, "_LISTED", Listed)
    many = {
        b"webhook-id": b"msg_1",
        b"webhook-timestamp": b"%d" % NOW.timestamp(),
        b"webhook-signature": b" ".join([b"v1,AAAA"] * 3_900),
    }
    check = signature.StandardWebhooks(["whsec_c2VjcmV0"])
    assert not check(many, b"{}", NOW.timestamp())
    assert check.offers(many) > signature.MOST_SIGNATURES

"""Plain HMAC as other clouds sign: the snippets of docs/security.md, against signatures of OpenSSL and GitHub."""

import hmac
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.core.vocabulary import DeadReason
from tests.receiver.conftest import JSON, SIGNED, House, answer, house, settings

pytestmark = pytest.mark.anyio

PAGE: Final = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
SNIPPETS: Final[dict[str, dict[str, Any]]] = {
    each["id"]: each
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for each in tomllib.loads(block).get("subscriptions", [])
    if each["auth"] == "hmac"
}

# printf '%s' "$BODY" | openssl dgst -sha1 -hmac "$KEY", and so on.
KEY: Final = "its a made-up key, long enough"
BODY: Final = '{"event":"user:vehicle:updated","id":"café"}'.encode()
SHA1: Final = "9c9bc7dd5a850dde62bc976ffe929826f427b174"
SHA256: Final = "6befdfa07bb7376baa02be36b27d1e1a45f862d7412c5a27ad5c7dd169c690ff"
SHA512: Final = (
    "77906a858469d3aef626707834cd08c1c355f24dbcaf46c33bbebbbac3013b9c"
    "8d7b0bba899fc62873ee1629296c551dee80b836ff68b329e93b0993c5b4e7e5"
)
SENT: Final = {
    "enode": {"x-enode-signature": f"sha1={SHA1}"},
    "smartcar": {"SC-Signature": SHA256},
    "high-mobility": {"X-HM-Signature-256": f"sha256={SHA256}"},
    "github": {"X-Hub-Signature-256": f"sha256={SHA256}"},
}
OTHERS: Final = [
    ({"header": "X-HM-Signature", "algorithm": "sha1", "prefix": "sha1="}, f"sha1={SHA1}"),
    ({"header": "x-sig", "algorithm": "sha1", "encoding": "base64"}, "nJvH3VqFDd5ivJdv/pKYJvQnsXQ="),
    ({"header": "x-sig", "encoding": "base64"}, "a+/foHu3N2uqAr42sn0eGkX4YtdBLFonrVx90WnGkP8="),
    ({"header": "x-sig", "algorithm": "sha512"}, SHA512),
    (
        {"header": "x-sig", "algorithm": "sha512", "encoding": "base64", "prefix": "v1,"},
        "v1,d5BqhYRp0672JnB4NM0IwcNV8k28r0bDO767usMBO5yNewu6iZ/GKHPuFikpbFUd7oC4Nv9osynpOwmTxbTn5Q==",
    ),
]


def signer(name: str, *secrets: str, **more: object) -> dict[str, Any]:
    """Return a subscription as the page writes it, with secrets of the test."""
    written = {key: value for key, value in SNIPPETS[name].items() if key != "secrets_file"}
    return {**written, "secrets": list(secrets or (KEY,)), **more}


async def status(built: House, name: str, body: bytes, headers: dict[str, str]) -> int:
    got = await built.client.post(f"/webhooks/{name}.vehicle.update", content=body, headers=JSON | headers)
    return got.status_code


def test_the_readme_has_a_snippet_for_each_of_them() -> None:
    assert set(SENT) == set(SNIPPETS)


@pytest.mark.parametrize("name", SENT)
async def test_what_each_of_them_signs_is_taken_with_the_readme_s_settings_and_nothing_else(name: str) -> None:
    built = house(settings(signer(name)))
    (header, value), *_ = SENT[name].items()
    assert 202 == await status(built, name, BODY, {header: value})
    assert 401 == await status(built, name, BODY + b" ", {header: value})
    assert 401 == await status(built, name, BODY, {header: value[:-1] + ("0" if value[-1] != "0" else "1")})
    assert 401 == await status(built, name, BODY, {header: value.partition("=")[2] or f"sha256={value}"})
    assert 401 == await status(built, name, BODY, {})
    assert 401 == await status(house(settings(signer(name, "another key"))), name, BODY, {header: value})
    assert [BODY] == built.store.bodies()


async def test_githubs_own_example_is_verified() -> None:
    """The documentation publishes it so that receivers can test themselves."""
    built = house(settings(signer("github", "It's a Secret to Everybody")))
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert 202 == await status(built, "github", b"Hello, World!", {"X-Hub-Signature-256": f"sha256={digest}"})
    assert [DeadReason.UNREADABLE] == built.store.dead(), "well signed, though it is no message"


@pytest.mark.parametrize(("form", "value"), OTHERS, ids=lambda each: str(each)[:40])
async def test_every_other_form_is_a_matter_of_settings(form: dict[str, Any], value: str) -> None:
    built = house(settings({"id": "other", "auth": "hmac", "secrets": ["older", KEY], **form}))
    assert 202 == await status(built, "other", BODY, {str(form["header"]): value})
    assert 401 == await status(built, "other", BODY[:-1], {str(form["header"]): value})


# ---- Smartcar's challenge -------------------------------------------------------------------------------------------

TOKEN: Final = "made-up management token"
VERIFY: Final = (
    b'{"eventId":"e-1","eventType":"VERIFY","data":{"challenge":"a random string"},"meta":{"version":"4.0"}}'
)
SIGNATURE: Final = "ccff5d51f950d7fed8cd409d6385f5028299a655042e43f7dcd30daaad1ab738"  # openssl, over VERIFY
PROOF: Final = "aaeea2a7a9fab4342b930115f867c7d947695014f7f8eed12158a0f7f42ece59"  # openssl, over "a random string"


async def ask(built: House, body: bytes = VERIFY, path: str = "/webhooks", **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    got = await built.client.post(path, content=body, headers=JSON | named)
    assert "application/json" == got.headers["content-type"]
    return got.status_code, got.json()


@pytest.mark.parametrize("path", ["/webhooks", "/webhooks/smartcar", "/webhooks/smartcar.vehicle.update"])
async def test_a_signed_challenge_is_answered_with_its_hash_and_not_stored(path: str) -> None:
    built = house(settings(signer("smartcar", TOKEN)))
    assert (200, {"challenge": PROOF}) == await ask(built, path=path, sc_signature=SIGNATURE)
    assert [] == built.store.taken
    assert 0 == built.count("bridge_messages_accepted_total")


async def test_a_challenge_that_is_not_signed_rightly_is_401_and_never_hashed() -> None:
    built = house(settings(signer("smartcar", TOKEN)))
    refused = (401, {"error": "the request could not be verified"})
    assert refused == await ask(built)
    assert refused == await ask(built, sc_signature=PROOF)
    assert refused == await ask(built, VERIFY.replace(b"random", b"forged"), sc_signature=SIGNATURE)
    assert refused == await ask(house(settings(signer("smartcar", "other"))), sc_signature=SIGNATURE)


async def test_during_a_rotation_the_answer_is_made_with_the_secret_of_the_question() -> None:
    for secrets in ((TOKEN, "newer"), ("older", TOKEN)):
        assert (200, {"challenge": PROOF}) == await ask(
            house(settings(signer("smartcar", *secrets))), sc_signature=SIGNATURE
        )


async def test_of_several_subscriptions_the_one_that_signed_is_answered() -> None:
    built = house(settings(SIGNED, signer("github"), signer("smartcar", TOKEN)))
    assert (200, {"challenge": PROOF}) == await ask(built, sc_signature=SIGNATURE)


async def test_the_former_spelling_of_the_challenge_is_answered_too() -> None:
    built = house(settings(signer("smartcar", TOKEN)))
    body = b'{"version":"2.0","webhookId":"w","eventName":"verify","payload":{"challenge":"a random string"}}'
    signature = "2d87f8731e4364ea9dd02721bab4d1e38f0db4af744803fe66940ce608c6fd16"
    assert (200, {"challenge": PROOF}) == await ask(built, body, sc_signature=signature)


@pytest.mark.parametrize(
    "event",
    [
        {"eventType": "VEHICLE_STATE", "data": {"challenge": "x"}},
        {"eventType": "VERIFY", "data": {"challenge": 7}},
        {"eventType": "VERIFY", "data": "challenge"},
        {"eventType": "VERIFY", "challenge": "x"},
        {"eventType": "VERIFY", "data": {"challenge": "x", "filler": "y" * 20_000}},
        {"eventType": "VERIFY", "data": {"challenge": "\ud800"}},
        {"data": {"challenge": "x"}},
        [{"eventType": "VERIFY", "data": {"challenge": "x"}}],
    ],
    ids=lambda event: str(event)[:40],
)
async def test_whatever_is_not_exactly_a_challenge_is_a_message_like_others(event: object) -> None:
    body = json.dumps(event).encode()
    built = house(settings(signer("smartcar", TOKEN)))
    assert 202 == (await ask(built, body, sc_signature=hmac.new(TOKEN.encode(), body, "sha256").hexdigest()))[0]
    assert 1 == len(built.store.taken)


async def test_a_challenge_where_plain_hmac_is_not_spoken_is_a_message_like_others() -> None:
    built = house(settings({"id": "sub-1", "auth": "none"}))
    assert (202, answer(1, dead=1)) == await ask(built)
    sha1 = house(settings(signer("enode", TOKEN)))
    assert 401 == (await ask(sha1, sc_signature=SIGNATURE))[0]


async def test_a_challenge_counts_as_a_message_against_the_rate() -> None:
    built = house(settings(signer("smartcar", TOKEN, rate_limit=1)))
    asked = [(await ask(built, sc_signature=SIGNATURE))[0] for _ in range(3)]
    assert [200, 429, 429] == asked

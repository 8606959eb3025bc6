"""Secrets are said to whom they belong, and to nobody else: a canary over the real process at DEBUG."""

import base64
import hmac
import json
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import pytest

from tests.life.stage import (
    ADMIN,
    CLIENT_SECRET,
    SECRET,
    SUBSCRIPTION,
    Bridge,
    Process,
    Sandbox,
    Table,
    ask,
    bridged,
    dump,
    run,
    sandboxed,
    signed,
    until,
    vehicle,
)
from tests.life.wire import Wire, relayed

SECOND: Final = "whsec_" + base64.b64encode(b"canary of the second secret").decode()
BEARER: Final = "canary-bearer-token-5be1"
PASSWORD: Final = "canary:pass&word=73"
HMAC_KEY: Final = "canary-hmac-key-9d0c"
OTHERS: Final = (
    {"id": "by-bearer", "auth": "bearer", "secrets": [BEARER]},
    {"id": "by-basic", "auth": "basic", "secrets": [f"user:{PASSWORD}"]},
    {"id": "by-hmac", "auth": "hmac", "secrets": [HMAC_KEY], "header": "x-signature", "prefix": "sha256="},
)
CONFIGURED: Final = {
    "client secret": CLIENT_SECRET,
    "webhook secret": SECRET,
    "second webhook secret": SECOND,
    "admin token": ADMIN,
    "bearer token": BEARER,
    "password": PASSWORD,
    "hmac key": HMAC_KEY,
}


def forms(secret: str) -> set[str]:
    """Return the spellings in which a secret could slip out."""
    plain = secret.removeprefix("whsec_")
    raw = plain.encode()
    return {
        plain,
        quote(plain, safe=""),
        raw.hex(),
        repr(plain)[1:-1],
        json.dumps(plain)[1:-1],
        base64.b64encode(raw).decode(),
        base64.b64encode(f"user:{plain}".encode()).decode(),
    }


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], set[str], Path]]:
    """Live through everything at DEBUG; return what was said where, the tokens used, and the store."""
    folder = tmp_path_factory.mktemp("secrets")
    with sandboxed(folder) as sandbox, relayed(sandbox.port) as wire, bridged(folder, wire.url) as bridge:
        bridge.secrets, bridge.others = (SECRET, SECOND), OTHERS
        bridge.configure(logs={"level": "debug", "format": "json"}, moost={"timeout": "1s"})
        bridge.start()
        said: dict[str, str] = {}
        at_the_door(bridge, said)
        at_moost(bridge, sandbox)
        in_the_process(bridge, said)
        at_the_desk(bridge, said)
        crashes(bridge, said)
        said["the console log at debug"] = on_a_console(bridge)
        said["log"] = bridge.text()
        assert CLIENT_SECRET.encode() in wire.said, "the canary was alive"
        yield said, tokens(wire), bridge.store


def tokens(wire: Wire) -> set[str]:
    found = wire.tokens()
    assert len(found) > 2, "tokens were refused and renewed"
    return found


def at_the_door(bridge: Bridge, said: dict[str, str]) -> None:
    """Be refused in every way."""
    url, body = bridge.url, dump(vehicle("user-1", "car-1", 50))
    update = f"{url}/webhooks/{SUBSCRIPTION}.vehicle.update"
    good = signed(body)
    headers: dict[str, Mapping[str, str]] = {
        "no signature": {},
        "a bad signature": {**good, "webhook-signature": "v1,AAAA"},
        "a malformed signature": {**good, "webhook-signature": SECRET},
        "an old timestamp": {**good, "webhook-timestamp": "1"},
        "a wrong media type": {**good, "content-type": "text/plain"},
        "the secret as bearer": {"authorization": f"Bearer {SECRET}"},
        "a wrong id": {**good, "webhook-id": ADMIN},
    }
    for what, fields in headers.items():
        answer = ask("POST", update, content=body, headers=dict(fields))
        assert answer.status_code in (401, 415), what
        said[f"answer to {what}"] = answer.text + str(answer.headers)
    for name, authorization in (
        ("by-bearer", f"Bearer {BEARER}"),
        ("by-bearer", f"Bearer {BEARER}x"),
        ("by-bearer", BEARER),
        ("by-basic", "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()),
        ("by-basic", "Basic " + base64.b64encode(f"user:{PASSWORD}x".encode()).decode()),
        ("by-basic", f"Basic user:{PASSWORD}"),
    ):
        answer = ask(
            "POST", f"{url}/webhooks/{name}.vehicle.update", content=body, headers={"authorization": authorization}
        )
        said[f"answer to {name} {len(said)}"] = answer.text
    verify = b'{"eventType":"VERIFY","data":{"challenge":"a random string"}}'
    for name, key in (("right", HMAC_KEY), ("wrong", HMAC_KEY + "x"), ("none", "")):
        fields = {"x-signature": "sha256=" + hmac.new(key.encode(), verify, "sha256").hexdigest()} if key else {}
        answer = ask("POST", f"{url}/webhooks/by-hmac", content=verify, headers=fields)
        assert (200 if key == HMAC_KEY else 401) == answer.status_code
        said[f"answer to a challenge, {name} key"] = answer.text + str(answer.headers)
    said["an unknown subscription"] = ask("POST", f"{url}/webhooks/{SECRET}.vehicle.update", content=body).text
    said["a body too large"] = ask("POST", update, content=b"x" * 2_000_000, headers=good).text
    for broken in (body[:-5], b"\xff" + SECRET.encode(), b'{"id":' + dump(SECRET) + b"}", b"[" * 5_000):
        said[f"a body that is not understood {len(said)}"] = bridge.post("vehicle.update", broken).text
    for path in ("/", "/api/census", "/api/nothing", f"/{SECRET}", f"/health?token={ADMIN}"):
        for token in (ADMIN, ADMIN + "x"):
            answer = ask("GET", url + path, headers={"authorization": f"Bearer {token}"})
            said[f"{path} for {'a' if token == ADMIN else 'no'} operator"] = answer.text + str(answer.headers)
    said["no HTTP"] = garbage(url, f"GET / HTTP/1.1\r\nauthorization: Bearer {ADMIN}\x00\r\n\r\n")
    said["a header too large"] = garbage(url, f"GET / HTTP/1.1\r\nauthorization: Bearer {ADMIN * 3_000}")


def garbage(url: str, text: str) -> str:
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), place.port), timeout=20) as sock:
        sock.sendall(text.encode())
        return sock.recv(65_536).decode()


CALLS: Final[tuple[Table, ...]] = (
    {"kind": "status", "status": 401, "path": "/events"},
    {"kind": "status", "status": 401, "path": "/events"},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 500},
    {"kind": "close_before"},
    {"kind": "close_after"},
    {"kind": "latency", "seconds": 1.5},
    {"kind": "status", "status": 400, "path": "/events", "building": "user-0"},
    {"kind": "status", "status": 400, "path": "/events", "building": "user-0"},
)
REFUSED: Final[tuple[Table, ...]] = ({"kind": "status", "status": 403, "path": "/events"},)
TOKENS: Final[tuple[tuple[Table, ...], ...]] = (
    ({"kind": "status", "status": 401}, {"kind": "status", "status": 500}, {"kind": "close_before"}),
    ({"kind": "close_after"}, {"kind": "latency", "seconds": 1.5}),
)


def at_moost(bridge: Bridge, sandbox: Sandbox) -> None:
    """Have every trouble with MOOST, its tokens above all; each time deliveries go on afterwards."""
    troubles: list[Sequence[Table]] = [CALLS, REFUSED]
    troubles += [({"kind": "revoke_tokens"}, *({**fault, "path": "/auth"} for fault in faults)) for faults in TOKENS]
    for faults in troubles:
        sandbox.faults(*({**fault, "times": 1} for fault in faults))
        for number in range(6):
            bridge.take("vehicle.update", vehicle(f"user-{number}", "car-1", bridge.accepted % 100))
        until(lambda: sandbox.fired() >= len(faults), f"all of {faults}")  # noqa: B023
        bridge.settled()
    sandbox.faults()
    bridge.settled()
    sandbox.kill()
    number = bridge.take("vehicle.update", vehicle("user-1", "car-1", 99))["ids"][0]
    until(lambda: "lost reply" in run("explain", number, "--config", bridge.config).stdout, "it is missed")
    sandbox.start()
    bridge.settled()


def in_the_process(bridge: Bridge, said: dict[str, str]) -> None:
    """Ask what monitoring asks; reload well and badly."""
    said["/health"] = json.dumps(bridge.health())
    said["/metrics"] = bridge.metrics()
    said["/docs"] = ask("GET", f"{bridge.url}/openapi.json").text
    assert bridge.process is not None
    good = bridge.config.read_text()
    bridge.config.write_text(
        good.replace(f'"{CLIENT_SECRET}"', f'"{CLIENT_SECRET} {ADMIN}"').replace(BEARER, f"{BEARER} x")
    )
    bridge.process.send(signal.SIGHUP)
    until(lambda: "reload_refused" in bridge.text(), "the reload is refused")
    said["check"] = "".join(map(str, vars(run("check", "--config", bridge.config)).values()))
    bridge.config.write_text(good + f"\n[[]]\n{SECRET}")
    said["check of no TOML"] = "".join(map(str, vars(run("check", "--config", bridge.config)).values()))
    bridge.config.write_text(good)
    bridge.process.send(signal.SIGHUP)


def at_the_desk(bridge: Bridge, said: dict[str, str]) -> None:
    """Use the commands that show what happened."""
    for words in (
        ("check", "--online"),
        ("dead-letters", "list"),
        ("explain", "1", "--json"),
    ):
        done = run(*words, "--config", bridge.config)
        said["bridge " + " ".join(words)] = done.stdout + done.stderr


CRASH: Final = """
import sys
from bridge import cli, run
from bridge.sink import client
async def broken(self, *_args, **_more):
    secret = self._moost.client_secret.get_secret_value()
    raise {error}(f"planted: {{self._moost!r}} {{secret}} Bearer {{self._token}}")
client.MoostClient.{method} = broken
cli.main()
"""


def crashes(bridge: Bridge, said: dict[str, str]) -> None:
    """Fail inside the client, with the secret in the text and in local variables."""
    assert 0 == bridge.stop()
    for error, method in (("ValueError", "call"), ("OSError", "fetch_token")):
        code = CRASH.format(error=error, method=method)
        log = bridge.folder / f"bridge-crash-{error}.log"
        process = Process(("serve", "--config", str(bridge.config)), log, ("-c", code))
        process.start()
        bridge.process, bridge.url = process, process.said(r'"url": ?"(http://[^"]+)"')
        if method == "call":
            until(bridge.ready, "the bridge accepts")
            bridge.take("vehicle.update", vehicle("user-2", "car-2", 1))
            until(lambda: "effect_faulted" in process.text(), "the fault is buried")  # noqa: B023
            assert 0 == process.stop()
        else:
            assert 1 == process.ended()
        said[f"crash by {error}"] = process.text()


def on_a_console(bridge: Bridge) -> str:
    """Run once with lines for people, in which tracebacks are the most talkative."""
    bridge.configure(logs={"level": "debug", "format": "console"})
    log = bridge.folder / "bridge-console.log"
    process = Process(
        ("serve", "--config", str(bridge.config)), log, ("-c", CRASH.format(error="RuntimeError", method="fetch_token"))
    )
    process.start()
    assert 1 == process.ended()
    return process.text()


@pytest.mark.parametrize("name", sorted(CONFIGURED))
def test_a_configured_secret_is_said_nowhere(name: str, life: tuple[dict[str, str], set[str], Path]) -> None:
    found = {place for place, text in life[0].items() for form in forms(CONFIGURED[name]) if form in text}
    assert set() == found


def test_a_token_is_said_nowhere(life: tuple[dict[str, str], set[str], Path]) -> None:
    said, used, _ = life
    for token in used:
        head, claims, signature = token.split(".")
        found = {place for place, text in said.items() if head in text or claims in text or signature in text}
        assert set() == found


def test_neither_secrets_nor_tokens_are_in_the_store(life: tuple[dict[str, str], set[str], Path]) -> None:
    _, used, store = life
    kept = b"".join(file.read_bytes() for file in store.parent.glob("bridge.db*"))
    for secret in (CLIENT_SECRET, ADMIN, BEARER, PASSWORD, HMAC_KEY, *used):
        assert secret.encode() not in kept


def test_the_log_said_something(life: tuple[dict[str, str], set[str], Path]) -> None:
    said = life[0]
    for word in ("sender_paused", "sender_resumed", "reload_refused", "reloaded", "dead_letter", "drained"):
        assert word in said["log"], word
    assert "room_failed" in said["crash by OSError"]
    assert "room_failed" in said["the console log at debug"]

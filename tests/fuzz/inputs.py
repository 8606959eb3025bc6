"""Strategies: messages as the device cloud writes them, bent; bodies, topics, headers and signatures of any kind.

Theory of operation: a message is one of the recorded examples with a few values replaced, dropped, doubled or moved,
and sometimes a few bytes of its text spoilt. So most inputs get past the first check, which random bytes never do.
"""

import base64
import copy
import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from bridge.core.vocabulary import ACTIONS, Action, Kind

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # made up, like all of these
HMAC_KEY: Final = "made-up key of the fuzzer"
TOKEN: Final = "made-up-token-of-the-fuzzer"
PASSWORD: Final = "me:made-up password"
SUBSCRIPTIONS: Final = (
    {"id": "acme", "auth": "standard-webhooks", "secrets": [SECRET], "user_prefix": "a-"},
    {"id": "by-hmac", "auth": "hmac", "secrets": [HMAC_KEY], "header": "sc-signature", "user_prefix": "h-"},
    {"id": "by-bearer", "auth": "bearer", "secrets": [TOKEN], "user_prefix": "b-", "meter_counter": "import"},
    {"id": "by-basic", "auth": "basic", "secrets": [PASSWORD], "meter_sign": "export-positive", "user_prefix": "p-"},
    {"id": "open", "auth": "none", "user_prefix": "o-"},
)
ADMIN: Final = "made-up-admin-token"
ADDRESSES: Final = (
    *("/", "/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/api/census", "/api/x"),
    *("/webhooks", "/webhooks/acme.vehicle.update", "/webhooks/", "//webhooks", "/webhooks/a/b"),
)
NAMES: Final = tuple(str(each["id"]) for each in SUBSCRIPTIONS)
TOPICS: Final = tuple(f"{kind.value}.{action.value}" for kind, actions in ACTIONS.items() for action in actions)
_KINDS: Final = sorted({*Kind, *Action, "toaster", "explode", ""})

Json = Any
Place = tuple[str | int, ...]
Request = tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes]
"""What it is, method, raw path, headers, body."""


# ---- messages -------------------------------------------------------------------------------------------------------


def _recorded() -> Iterator[tuple[str, Json]]:
    """Yield (topic without subscription, message) of each example."""
    for path in sorted((EXAMPLES / "messages").rglob("*.json")):
        action = next(name for name in sorted(Action, key=len, reverse=True) if path.name.startswith(name))
        yield f"{path.parent.name}.{action.value}", json.loads(path.read_text())
    for kind in Kind:
        for path in sorted((EXAMPLES / kind.value).glob("*.json")):
            example = json.loads(path.read_text())
            for message in (*example.get("given", ()), example["when"]):
                if isinstance(message.get("body"), dict):
                    yield message["topic"].partition(".")[2], message["body"]


RECORDED: Final = tuple(_recorded())

ODD: Final[tuple[Json, ...]] = (
    None, True, False, 0, -1, 1, 0.5, 100, 101, 1e6, -1e6, 1e308, 2**53, 2**63, 10**400, float("nan"), float("inf"),
    float("-inf"), "", " ", "null", "NULL", "NaN", "true", "1", "-5", "é", "\ud800", "\x00", "a\nb", "x" * 300, "{}",
    "CHARGING", "IDLE", "FAULT", "charging ", "DISCHARGING", "UNPLUGGED", "HEATPUMP", "AUTO", "EUR", "..", "core-data",
    "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-06-15T10:00:00.000Z", "2026-06-15T09:59:59Z", "2026-06-15",
    "2026-02-30T10:00:00Z", "2026-06-15T24:00:00Z", "2026-06-15T10:00:00+14:00", "0001-01-01T00:00:00+23:59",
    1_781_517_600, 1_781_517_600_000, -62_135_596_800, [], {}, [[]], [None], [{}], {"": {}}, {"lastUpdated": "x"},
)  # fmt: skip
USERS: Final = ("user-1", "user-2", "user-3")

odd_values = st.sampled_from(ODD).map(copy.deepcopy) | st.integers() | st.floats() | st.text(max_size=12)
pieces = st.sampled_from(
    [b"", b",", b"}", b"]", b"{", b'"', b"\\", b"\x00", b"\xff", b"\\ud800", b"1e999", b"NaN", b"[" * 300]
)


def _places(value: Json, here: Place = ()) -> Iterator[Place]:
    """Yield the places of all values within a value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*here, key)
        yield from _places(inner, (*here, key))


def _owner(value: Json, place: Place) -> Json:
    for key in place[:-1]:
        value = value[key]
    return value


def _bend(draw: st.DrawFn, content: Json) -> None:
    """Change one value of a message."""
    places = list(_places(content))
    if not places:
        return
    place = draw(st.sampled_from(places))
    owner, key = _owner(content, place), place[-1]
    match draw(st.integers(0, 5)):
        case 0 | 1:
            owner[key] = draw(odd_values)
        case 2:
            del owner[key]
        case 3:
            other = draw(st.sampled_from(places))
            owner[key] = copy.deepcopy(_owner(content, other)[other[-1]])
        case 4:
            owner[key] = [owner[key]] if draw(st.booleans()) else {str(key): owner[key]}
        case _:
            if isinstance(owner, dict):
                owner[draw(st.sampled_from(["id", "userId", "lastUpdated", "deviceId", "locationId", "new"]))] = draw(
                    odd_values
                )


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return (topic without subscription, body) of a bent message."""
    topic, recorded = draw(st.sampled_from(RECORDED))
    content = copy.deepcopy(recorded)
    if isinstance(content, dict):
        content["id"] = f"device-{draw(st.integers(1, 3))}"
        if "userId" in content:
            content["userId"] = draw(st.sampled_from(USERS))
    for _ in range(draw(st.integers(0, 4))):
        _bend(draw, content)
    body = json.dumps(content).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(pieces) + body[at + draw(st.integers(0, 3)) :]
    if draw(st.integers(0, 19)) == 0:
        topic = draw(st.sampled_from(TOPICS))
    return topic, body


# ---- bodies ---------------------------------------------------------------------------------------------------------

_CRUMBS: Final = [
    *"[]{},:", "null", "NaN", "1", "-0", "1e999", '"topic"', '"data"', '"type"', '"source"', '"id"', '"eventType"',
    '"VERIFY"', '"challenge"', '"acme.vehicle.update"', '"open.meter.update"', '"\\ud800"', '"', "\\", " ", "\ufeff",
]  # fmt: skip
crumbs = st.lists(st.sampled_from(_CRUMBS), max_size=30).map("".join).map(str.encode)
names = st.sampled_from(NAMES)
_STRANGE: Final = [
    "",
    ".",
    "acme",
    "acme.",
    ".vehicle.update",
    "acme..",
    "\ud800",
    "acme.\x00",
    "é.meter.update",
    "x" * 201,
]
topics = st.one_of(
    st.sampled_from(_STRANGE),
    st.builds("{}.{}".format, names, st.sampled_from(TOPICS)),
    st.builds("{}.{}.{}".format, names, st.sampled_from(_KINDS), st.sampled_from(_KINDS)),
    st.text(max_size=20),
)


@st.composite
def wrapped(draw: st.DrawFn) -> bytes:
    """Return messages within envelopes, or arrays of them, of topics that mix."""

    def one() -> bytes:
        own, body = draw(messages())
        topic = json.dumps(draw(st.just(f"{draw(names)}.{own}") | topics | odd_values)).encode()
        match draw(st.integers(0, 3)):
            case 0:
                return body
            case 1:
                return b'{"topic":' + topic + b',"data":' + body + b"}"
            case 2:
                return b'{"specversion":"1.0","source":"/hub","id":"e-1","type":' + topic + b',"data":' + body + b"}"
            case _:
                return b'{"data":' + body + b',"topic":' + topic + b',"type":' + topic + b"}"

    if draw(st.booleans()):
        return one()
    return b"[" + b",".join(one() for _ in range(draw(st.integers(0, 4)))) + b"]"


challenges = st.builds(
    lambda name, challenge: json.dumps({name: "VERIFY", "data": {"challenge": challenge}}).encode(),
    st.sampled_from(["eventType", "eventtype"]),
    odd_values,
)
rubbish = st.one_of(crumbs, st.binary(max_size=200), challenges)
bodies = st.one_of(messages().map(lambda pair: pair[1]), wrapped(), rubbish)


# ---- headers and signatures -----------------------------------------------------------------------------------------

_HEADERS: Final = [
    b"content-type", b"content-encoding", b"content-length", b"expect", b"x-topic", b"ce-type", b"webhook-topic",
    b"ce-id", b"ce-source", b"webhook-id", b"svix-id", b"webhook-timestamp", b"webhook-signature", b"svix-signature",
    b"sc-signature", b"authorization", b"x-forwarded-for", b"webhook-request-origin", b"cookie", b"te",
]  # fmt: skip
_VALUES: Final = [
    b"", b" ", b"application/json", b"application/cloudevents+json", b"text/plain", b"gzip", b"0", b"-1", b"9" * 30,
    b"1e3", b"100-continue", b"v1,", b"v1,AAAA v1,BBBB", b"Bearer ", b"Basic !", b"127.0.0.1", b"::1, fe80::1%lo",
    b"\xff\xfe", b"acme.vehicle.update", b"open.meter.update", b"nobody.vehicle.update", b"x" * 400,
]  # fmt: skip
headers = st.lists(st.tuples(st.sampled_from(_HEADERS), st.sampled_from(_VALUES) | st.binary(max_size=30)), max_size=3)


def signed(name: str, body: bytes, number: str, now: datetime | None = None) -> list[tuple[bytes, bytes]]:
    """Return the headers that prove a body to come from a subscription."""
    match name:
        case "acme":
            at = str(int((now or datetime.now(UTC)).timestamp()))
            key = base64.b64decode(SECRET.removeprefix("whsec_"))
            digest = hmac.digest(key, f"{number}.{at}.".encode() + body, hashlib.sha256)
            found = {
                "webhook-id": number,
                "webhook-timestamp": at,
                "webhook-signature": "v1," + base64.b64encode(digest).decode(),
            }
        case "by-hmac":
            found = {"sc-signature": hmac.new(HMAC_KEY.encode(), body, "sha256").hexdigest(), "webhook-id": number}
        case "by-bearer":
            found = {"authorization": f"Bearer {TOKEN}"}
        case "by-basic":
            found = {"authorization": "Basic " + base64.b64encode(PASSWORD.encode()).decode()}
        case _:
            found = {}
    return [(key.encode(), value.encode()) for key, value in found.items()]


def spoilt(draw: st.DrawFn, proof: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return a proof with one of its values damaged."""
    found = list(proof)
    if found:
        place = draw(st.integers(0, len(found) - 1))
        name, value = found[place]
        at = draw(st.integers(0, len(value)))
        found[place] = name, value[:at] + draw(pieces) + value[at + draw(st.integers(0, 2)) :]
    return found


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Return a request; most are webhooks that are signed rightly."""
    if draw(st.integers(0, 11)) == 0:
        return draw(_others())
    caller = draw(names)
    own, body = draw(messages())
    topic = f"{caller}.{own}"
    match draw(st.integers(0, 7)):
        case 0 | 1:
            path = b"/webhooks"
            body = draw(wrapped())
        case 2:
            path = b"/webhooks/" + draw(topics).encode("utf-8", "surrogatepass")
            body = draw(bodies)
        case 3:
            path = b"/webhooks/" + topic.encode()
            body = draw(rubbish)
        case _:
            path = b"/webhooks/" + topic.encode()
    proof = signed(caller, body, f"m-{draw(st.integers(0, 200))}")
    noise = draw(headers) if draw(st.integers(0, 4)) == 0 else []
    match draw(st.integers(0, 9)):
        case 0:
            return "unsigned", "POST", path, noise, body
        case 1:
            return "spoilt signature", "POST", path, [*spoilt(draw, proof), *noise], body
        case _:
            return "signed", "POST", path, [*proof, *noise], body


@st.composite
def _others(draw: st.DrawFn) -> Request:
    """Return a request to any address by any method."""
    method = draw(st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "POST", "TRACE", "X"]))
    path = draw(st.sampled_from(ADDRESSES) | st.text(max_size=12).map(lambda text: f"/{text}"))
    fields = draw(headers)
    if draw(st.booleans()):
        fields.append((b"authorization", f"Bearer {ADMIN}".encode()))
    return "any address", method, path.encode("utf-8", "surrogatepass"), fields, draw(bodies)

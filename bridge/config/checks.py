"""What must fit together: the checks that look at more than one value.

Rules:
- A check yields the place and the problem; it raises nothing and shows no secret.
- A check may assume the right types, nothing else: other values may be wrong and stand at their defaults.

Source: Standard Webhooks specification, "Symmetric" (whsec_ and base64); mapping rule M3.3 (code tables).
"""

import base64
import binascii
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bridge.config import database, kafka
from bridge.config.fields import Auth, DeviceSign, is_loopback
from bridge.config.models import DeviceException, Moost, Settings, Subscription
from bridge.core.rules import Role
from bridge.core.vocabulary import EVENT_TYPES, DeviceType, EventType, Kind

Place = tuple[str | int, ...]
"""Where a value stands: section, key; or list, index, key."""

Problem = tuple[Place, str]

SLOT: Final = timedelta(minutes=15)

_STATUS_WORDS: Final = frozenset({"disconnected", "offline", "fault", "active", "online"})
_SWITCH_WORDS: Final = frozenset({"plugged", "unplugged"})
_STATUS_DEVICES: Final = frozenset(
    {
        DeviceType.CAR,
        DeviceType.CAR_CHARGER,
        DeviceType.BATTERY,
        DeviceType.INVERTER,
        DeviceType.SMART_METER,
        DeviceType.HEAT_PUMP,
        DeviceType.WATER_HEATER,
        DeviceType.THERMOSTAT,
        DeviceType.APPLIANCE,
    }
)
# The pairs that mapping rule M3.3 can fill, and their words; None = the device cloud's own words, any of them.
CODE_TABLES: Final[Mapping[EventType, tuple[frozenset[DeviceType], frozenset[str] | None]]] = {
    EventType.DEVICE_STATUS: (_STATUS_DEVICES, _STATUS_WORDS),
    EventType.SWITCH_STATE: (frozenset({DeviceType.CAR_CHARGER}), _SWITCH_WORDS),
    EventType.CHARGING_MODE: (frozenset({DeviceType.BATTERY, DeviceType.HEAT_PUMP}), None),
}

_HMAC_ONLY: Final = frozenset({"header", "algorithm", "encoding", "prefix"})

_LARGEST_WHOLE: Final = 2**24  # MOOST's values are 32-bit floats: whole numbers are exact up to here


def problems(settings: Settings, *, serving: bool, wrong: Collection[Place] = ()) -> Iterator[Problem]:
    """Yield everything that does not fit; `serving` also asks for what only the daemon needs.

    `wrong` are the places whose values are known to be wrong and stand at their defaults.
    """
    yield from _subscriptions(settings, serving=serving, wrong=wrong)
    yield from _prefixes(settings.subscriptions)
    yield from _heirs(settings.subscriptions)
    yield from _devices(settings)
    if serving:
        yield from _credentials(settings)
        yield from _way(settings.moost, wrong)
    yield from _store(settings)
    yield from _intervals(settings)
    yield from _codes(settings)
    yield from _clock(settings)
    yield from kafka.problems(settings, serving=serving, wrong=wrong)


def _subscriptions(settings: Settings, *, serving: bool, wrong: Collection[Place]) -> Iterator[Problem]:
    if serving and not settings.subscriptions:
        yield ("subscriptions",), "at least one is needed, or no message can be accepted"
    seen = Counter[str]()
    for index, each in enumerate(settings.subscriptions):
        seen[each.id] += 1
        if not each.id:
            yield ("subscriptions", index, "id"), "is missing"
        elif seen[each.id] == 2:  # noqa: PLR2004 - say it once
            yield ("subscriptions", index, "id"), f"{each.id!r} is used twice"
        if ("subscriptions", index, "auth") in wrong:
            continue  # what goes with it cannot be judged
        for key, problem in _authentication(each, settings.server.host, serving=serving):
            yield ("subscriptions", index, *key), problem


def _authentication(each: Subscription, host: str, *, serving: bool) -> Iterator[Problem]:
    """Yield what is wrong with how one subscription proves itself."""
    if each.auth is Auth.NONE:
        if each.secrets:
            yield ("secrets",), 'are not looked at with auth = "none"; remove them or choose another auth'
        if not each.allowed_networks and not is_loopback(host):
            yield ("auth",), f'"none" on the public address {host} needs allowed_networks'
    elif each.auth is Auth.KAFKA:
        if each.secrets:
            yield ("secrets",), 'are not looked at with auth = "kafka"; remove them or choose another auth'
    elif serving and not each.secrets:
        yield ("secrets",), f'at least one is needed with auth = "{each.auth}"'
    if each.auth is Auth.HMAC and not each.header:
        yield ("header",), 'is needed with auth = "hmac": the header that carries the signature'
    foreign = each.model_fields_set & _HMAC_ONLY if each.auth is not Auth.HMAC else frozenset()
    yield from (((key,), f'belongs to auth = "hmac", not to "{each.auth}"') for key in sorted(foreign))
    yield from _secrets(each)


def _secrets(each: Subscription) -> Iterator[Problem]:
    """Yield the secrets that cannot be right."""
    wrong = _SECRET_FORMS.get(each.auth)
    for number, secret in enumerate(each.secrets):
        text = secret.get_secret_value()
        if not text:
            yield ("secrets", number), "is empty"
        elif wrong and (problem := wrong(text)):
            yield ("secrets", number), problem


def _standard(secret: str) -> str | None:
    try:
        decoded = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    return None if secret.startswith("whsec_") and decoded else 'must be "whsec_" and base64, as the sender shows it'


def _basic(secret: str) -> str | None:
    return None if ":" in secret else 'must be "user:password"'


def _bearer(secret: str) -> str | None:
    plain = secret.isascii() and secret.isprintable() and " " not in secret
    return None if plain else "must be printable ASCII without spaces"


_SECRET_FORMS: Final[Mapping[Auth, Callable[[str], str | None]]] = {
    Auth.STANDARD_WEBHOOKS: _standard,
    Auth.BASIC: _basic,
    Auth.BEARER: _bearer,
}


def _prefixes(subscriptions: Sequence[Subscription]) -> Iterator[Problem]:
    """Yield the prefixes with which one subscription could write another's user ids; without any they share them."""
    if not any(each.user_prefix for each in subscriptions):
        return
    for index, each in enumerate(subscriptions):
        other = next(
            (other for other in subscriptions if other is not each and other.user_prefix.startswith(each.user_prefix)),
            None,
        )
        if other is None:
            continue
        yield (
            ("subscriptions", index, "user_prefix"),
            f"is needed: a user id of {each.id!r} could begin with the prefix of {other.id!r}, {other.user_prefix!r}"
            if not each.user_prefix
            else f"the prefix of {other.id!r} begins with it: the two could write each other's users",
        )


def _heirs(subscriptions: Sequence[Subscription]) -> Iterator[Problem]:
    """Yield the former ids that cannot be."""
    ids = {each.id for each in subscriptions}
    heirs: dict[str, str] = {}
    for index, each in enumerate(subscriptions):
        for number, old in enumerate(each.inherits):
            place = ("subscriptions", index, "inherits", number)
            if old in ids:
                yield place, f"{old!r} is the id of a subscription; only one that is there no more leaves its devices"
            elif old in heirs:
                yield place, f"{old!r} is inherited by {heirs[old]!r} already"
            else:
                heirs[old] = each.id


def _devices(settings: Settings) -> Iterator[Problem]:
    seen = Counter[tuple[str, Kind | None, str]]()
    heirs = settings.heirs()
    known = {*heirs, *(each.id for each in settings.subscriptions)}
    for index, each in enumerate(settings.devices):
        if each.subscription and each.subscription not in known:
            yield ("devices", index, "subscription"), f"{each.subscription!r} is no subscription"
        name = (heirs.get(each.subscription, each.subscription), each.kind, each.id)
        seen[name] += 1
        if each.kind is None:
            yield ("devices", index, "kind"), "is missing"
        if not each.id:
            yield ("devices", index, "id"), "is missing"
        elif seen[name] == 2:  # noqa: PLR2004 - say it once
            yield ("devices", index, "id"), f"{each.id!r} is named twice"
        if each.kind is not None:
            yield from ((("devices", index, key), problem) for key, problem in _exception(each, each.kind))


_SIGNS: Final[Mapping[Kind, tuple[DeviceSign, ...]]] = {
    Kind.METER: (DeviceSign.IMPORT, DeviceSign.EXPORT),
    Kind.BATTERY: (DeviceSign.CHARGE, DeviceSign.DISCHARGE),
}
_IGNORED: Final = frozenset({Kind.METER, Kind.PV_INVERTER, Kind.BATTERY})


def _exception(each: DeviceException, kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the settings of a device that its kind does not have."""
    if each.role is not None and kind is not Kind.METER and not (each.role is Role.IGNORE and kind in _IGNORED):
        yield "role", f'belongs to kind = "meter" ("ignore" also to pv-inverter and battery), not to "{kind}"'
    if each.sign is not None:
        if kind not in _SIGNS:
            yield "sign", f'belongs to kind = "meter" or "battery", not to "{kind}"'
        elif each.sign not in _SIGNS[kind]:
            yield "sign", f"of a {kind} is one of {', '.join(_SIGNS[kind])}"
    if each.counter is not None and kind is not Kind.METER:
        yield "counter", f'belongs to kind = "meter", not to "{kind}"'
    if each.unit is not None and kind is Kind.TARIFF:
        yield "unit", "belongs to devices with a power, not to a tariff"


def _credentials(settings: Settings) -> Iterator[Problem]:
    moost = settings.moost
    present = {
        "client_id": moost.client_id,
        "client_secret": moost.client_secret.get_secret_value(),
        "customer_id": moost.customer_id,
    }
    yield from ((("moost", key), "is missing") for key, value in present.items() if not value)


def _way(moost: Moost, wrong: Collection[Place]) -> Iterator[Problem]:
    """Yield what is wrong with the way to MOOST."""
    if ("moost", "base_url") in wrong:
        return
    parts = urlsplit(moost.base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname) and not moost.insecure:
        what = "must be https: the client's secret stands in the address of the token call; insecure = true allows http"
        yield ("moost", "base_url"), what
    if moost.ca_file and parts.scheme == "http":
        yield ("moost", "ca_file"), "belongs to a base_url with https"
    elif moost.ca_file and (problem := _certificates(moost.ca_file)):
        yield ("moost", "ca_file"), problem


def _certificates(name: str) -> str | None:
    """Return what is wrong with a file of certificates."""
    if not Path(name).is_file():
        return f"there is no file {name!r}"
    try:
        ssl.create_default_context(cafile=name)
    except PermissionError:
        return f"{name!r} may not be read"
    except (OSError, ValueError):
        return f"{name!r} holds no certificates (PEM)"
    return None


def _store(settings: Settings) -> Iterator[Problem]:
    url = settings.store.url.get_secret_value()
    if database.is_database(url):
        yield from ((("store", "url"), problem) for problem in database.problems(url))
    elif not url.startswith("sqlite:///") or not url.removeprefix("sqlite:///").strip("/"):
        yield (
            ("store", "url"),
            'must be "sqlite:///FILE" (relative), "sqlite:////FILE" (absolute) or "postgresql://USER:PASSWORD@HOST/DATABASE"',
        )

    export = settings.store.dead_export
    if export and (Path(export).is_dir() or not Path(export).absolute().parent.is_dir()):
        yield ("store", "dead_export"), "must be a file in a folder that is there"


def _intervals(settings: Settings) -> Iterator[Problem]:
    intervals = settings.intervals
    for key in ("grace", "spread"):
        if getattr(intervals, key) >= SLOT:
            yield ("intervals", key), "must be shorter than a slot (15m)"
    if intervals.hold_active > intervals.hold:
        yield ("intervals", "hold_active"), "must not be longer than hold"
    if intervals.max_backfill < SLOT:
        yield ("intervals", "max_backfill"), "must be at least a slot (15m)"


def _codes(settings: Settings) -> Iterator[Problem]:
    for event, tables in settings.codes.items():
        if event not in CODE_TABLES:
            yield ("codes", event), f"must be one of {_list(CODE_TABLES)}"
            continue
        devices, words = CODE_TABLES[EventType(event)]
        for device, codes in tables.items():
            if device not in devices:
                yield ("codes", event, device), f"must be one of {_list(devices)}"
                continue
            for word, code in codes.items():
                if problem := _code(EventType(event), words, word, code):
                    yield ("codes", event, device, word), problem


def _code(event: EventType, words: frozenset[str] | None, word: str, code: int) -> str | None:
    """Return what is wrong with one row of a code table."""
    if words is not None and word not in words:
        return f"must be one of {_list(words)}"
    if words is None and word != word.upper():
        return f"must be the device cloud's word, in capitals: {word.upper()}"
    rule = EVENT_TYPES[event]
    low = -_LARGEST_WHOLE if rule.lowest is None else int(rule.lowest)
    high = _LARGEST_WHOLE if rule.highest is None else int(rule.highest)
    return None if low <= code <= high else f"must be a code from {low} to {high}"


def _list(words: Mapping[EventType, object] | frozenset[str] | frozenset[DeviceType]) -> str:
    return ", ".join(sorted(str(word) for word in words))


def _clock(settings: Settings) -> Iterator[Problem]:
    host = urlsplit(settings.moost.base_url).hostname
    if "clock" in settings.model_fields_set and settings.clock.model_fields_set and not is_loopback(host):
        yield ("clock",), f"simulated time is refused: moost.base_url points to {host}, not to this machine"

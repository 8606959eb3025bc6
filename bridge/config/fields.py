"""How a single value is written: durations, sizes, networks, names, and the words of each choice."""

import ipaddress
import re
from datetime import timedelta
from enum import StrEnum
from functools import cache, partial
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_LONGEST: Final = timedelta(days=3650)
_NO_ADDRESS: Final = 'must be an address such as "https://api.moost.io", without user, query or fragment'


class Auth(StrEnum):
    """How a subscription's messages prove where they come from."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    HMAC = "hmac"
    BEARER = "bearer"
    BASIC = "basic"
    NONE = "none"
    KAFKA = "kafka"  # no webhooks: they come by Kafka only


class Algorithm(StrEnum):
    """Hash of a plain HMAC signature."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class Encoding(StrEnum):
    """How a plain HMAC signature is written in its header."""

    HEX = "hex"
    BASE64 = "base64"


class MeterSign(StrEnum):
    """Which direction a meter counts as positive power."""

    IMPORT = "import-positive"
    EXPORT = "export-positive"


class DeviceSign(StrEnum):
    """Which direction one device counts as positive power: a meter the first two, a battery the last two."""

    IMPORT = "import-positive"
    EXPORT = "export-positive"
    CHARGE = "charge-positive"
    DISCHARGE = "discharge-positive"


class MeterCounter(StrEnum):
    """What a meter's `meterValue` counts."""

    NONE = "none"
    IMPORT = "import"


class LostReply(StrEnum):
    """What to do with a call whose reply was lost."""

    RESEND = "resend"
    HISTORICAL = "historical"
    HOLD = "hold"


class Security(StrEnum):
    """How the way to a Kafka broker is protected."""

    PLAINTEXT = "plaintext"
    SSL = "ssl"
    SASL_PLAINTEXT = "sasl_plaintext"
    SASL_SSL = "sasl_ssl"

    @property
    def encrypted(self) -> bool:
        """Return whether TLS is spoken."""
        return self in (Security.SSL, Security.SASL_SSL)

    @property
    def proving(self) -> bool:
        """Return whether the bridge proves who it is."""
        return self in (Security.SASL_PLAINTEXT, Security.SASL_SSL)


class Mechanism(StrEnum):
    """How the bridge proves to a Kafka broker who it is."""

    OAUTHBEARER = "oauthbearer"
    PLAIN = "plain"
    SCRAM_SHA_256 = "scram-sha-256"
    SCRAM_SHA_512 = "scram-sha-512"


class OffsetReset(StrEnum):
    """Where a consumer group begins that has committed nothing yet."""

    EARLIEST = "earliest"
    LATEST = "latest"


class LogLevel(StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line looks; auto = for people on a terminal, JSON otherwise."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def duration(value: object) -> timedelta:
    """Return "30s" as a timedelta; units ms, s, m, h, d."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a whole number and a unit (ms, s, m, h or d), such as "30s" or "2h"')
    found = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    if found > _LONGEST:
        raise ValueError("is too long; ten years must do")
    return found


def _some(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than zero")
    return value


def size(value: object) -> int:
    """Return "10GiB", or a number of bytes, as bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9_]{1,15}) ?([kKMGT]?i?B)?", value) if isinstance(value, str) else None
    if match is None or not match[1].strip("_") or (match[2] or "B") not in _BYTES:
        raise ValueError('must be a number of bytes or a size such as "500MiB" or "10GiB"')
    return int(match[1].replace("_", "")) * _BYTES[match[2] or "B"]


def network(value: object) -> Network:
    """Return "10.0.0.0/8", or a single address, as a network."""
    if isinstance(value, Network):
        return value
    try:
        return _unmapped(ipaddress.ip_network(str(value)))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError('must be a network such as "10.0.0.0/8" or "2001:db8::/32"') from None
    raise ValueError(f'has bits behind its prefix; "{meant}" may be meant')


def _unmapped(found: Network) -> Network:
    """Return a network of IPv4 addresses that are written as IPv6 ("::ffff:10.0.0.0/104") as what it is.

    Callers are compared that way: a socket for both families sees every IPv4 caller as such an address.
    """
    inner = found.network_address.ipv4_mapped if isinstance(found, ipaddress.IPv6Network) else None
    short = found.max_prefixlen - ipaddress.IPV4LENGTH
    return (
        found if inner is None or found.prefixlen < short else ipaddress.IPv4Network((inner, found.prefixlen - short))
    )


def is_loopback(host: str | None) -> bool:
    """Return whether a host can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _fits(value: str, *, pattern: str, wanted: str) -> str:
    if value and not re.fullmatch(pattern, value):
        raise ValueError(f"must be {wanted}")
    return value


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())  # walks over the disk: once is enough for a directory of a million rows


def time_zone(value: object) -> str:
    """Return the name of a time zone as it is."""
    if not isinstance(value, str) or value not in _zones():
        raise ValueError('must be an IANA time zone such as "Europe/Berlin"')
    return value


def _web_address(value: str) -> str:
    """Return the address without its last slash; the paths of the API are appended to it."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(_NO_ADDRESS) from None
    plain = not (parts.query or parts.fragment or parts.username or parts.password or re.search(r"\s", value))
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise ValueError(_NO_ADDRESS)
    return value.rstrip("/")


def proxy_address(value: SecretStr) -> SecretStr:
    """Return the address of a proxy as it is; its problem does not show it, for it may hold a password."""
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", text)
        plain = parts.path in ("", "/") and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        whole = plain = False
    if text and not (whole and plain):
        raise ValueError('must be an address such as "http://user:password@proxy.example:3128"')
    return value


def proxy_secrets(address: str) -> set[str]:
    """Return the password in the address of a proxy, as it is and as it is written."""
    try:
        password = urlsplit(address).password or ""
    except ValueError:  # no address at all; the checks say so
        return set()
    return {password, unquote(password)}


def _maybe_web_address(value: str) -> str:
    return _web_address(value) if value else value


def fits(pattern: str, wanted: str) -> AfterValidator:
    """Return a check of a text by a pattern; an empty text is left to the checks of what is required."""
    return AfterValidator(partial(_fits, pattern=pattern, wanted=wanted))


def secret_fits(pattern: str, wanted: str) -> AfterValidator:
    """Return the same check of a secret; its problem does not show the value."""

    def check(secret: SecretStr) -> SecretStr:
        _fits(secret.get_secret_value(), pattern=pattern, wanted=wanted)
        return secret

    return AfterValidator(check)


Duration = Annotated[timedelta, BeforeValidator(duration)]
Positive = Annotated[Duration, AfterValidator(_some)]
Size = Annotated[int, BeforeValidator(size), Field(gt=0)]
Networks = tuple[Annotated[Network, BeforeValidator(network)], ...]
TimeZone = Annotated[str, AfterValidator(time_zone)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
MaybeWebAddress = Annotated[str, AfterValidator(_maybe_web_address)]
HeaderName = Annotated[str, AfterValidator(str.lower), fits(r"[!#$%&'*+.^_`|~0-9a-z-]+", "the name of an HTTP header")]

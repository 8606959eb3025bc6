"""Who is calling: the address of a connection, or the one that a trusted proxy forwards.

Rules:
- X-Forwarded-For is believed from trusted proxies only, and read from its end: the rest of it the caller writes.
- Whoever has not proved itself pays by its address (R13). All of an IPv6 /64 is one payer: whoever has one of its
  addresses has them all.
- Where a trusted proxy forwards nothing readable the proxy pays, but none of its connections is cut for it.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from starlette.types import Scope

from bridge.config.fields import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PROXY: Final = "proxy "  # before the address of a payer that is a trusted proxy
_ONE_PAYER: Final = 64  # bits of an IPv6 address
_REMEMBERED: Final = 4_096  # addresses that need not be read again


def client_address(scope: Scope, trusted: Sequence[Network]) -> Address | None:
    """Return who is calling: the last address in X-Forwarded-For that is no trusted proxy; None = cannot be told."""
    client = scope.get("client")
    address = read_address(client[0] if client else "")
    forwarded = (value for name, value in scope["headers"] if name == b"x-forwarded-for")
    hops = b",".join(forwarded).decode("latin-1").split(",")
    while hops and is_within(address, trusted):
        hop = hops.pop().strip()
        if not hop and not hops:
            break
        address = read_address(_without_port(hop))
    return address


def payer(scope: Scope, trusted: Sequence[Network]) -> str:
    """Return who pays for a request until it has proved itself: its address, or a trusted proxy's."""
    client = scope.get("client")
    host = client[0] if client else ""
    if not trusted or not is_within(read_address(host), trusted):
        return block(host)
    found = client_address(scope, trusted)
    if found is None or is_within(found, trusted):
        return PROXY + host
    return block(str(found))


def is_proxy(who: str) -> bool:
    """Return whether a payer is a trusted proxy."""
    return who.startswith(PROXY)


@lru_cache(maxsize=_REMEMBERED)
def block(host: str) -> str:
    """Return an address as a payer: an IPv6 address stands for its /64."""
    address = read_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, _ONE_PAYER), strict=False))
    return host if address is None else str(address)


@lru_cache(maxsize=_REMEMBERED)
def read_address(text: str) -> Address | None:
    """Return an address; None = it is none. An IPv4 address that is written as IPv6 is what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_within(address: Address | None, networks: Sequence[Network]) -> bool:
    """Return whether an address lies in any of some networks."""
    return address is not None and any(address in network for network in networks)


def _without_port(hop: str) -> str:
    """Return "203.0.113.7:1234" or "[2001:db8::7]:1234" without its port."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop

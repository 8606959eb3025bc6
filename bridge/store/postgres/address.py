"""The address of a shared store, taken apart: which servers, who asks, how the way is encrypted.

Rules:
- Each host, and each address that the name of a host has, is a server to try by itself.
- To a server that is not on this machine the password goes over an encrypted way to a proven server only
  (`sslmode=verify-full`), unless the address says another `sslmode`.
- What is no option of the connection is a setting of the session, as libpq has it.

Source: PostgreSQL documentation, "Database Connection Control Functions" (connection strings, sslmode, sslrootcert).
"""

import asyncio
import contextlib
import ipaddress
import re
import shlex
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from bridge.store.refusal import StoreRefused

PORT: Final = 5432
FORM: Final = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_FORM: Final = re.compile(r"postgres(?:ql)?://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?")


class SslMode(StrEnum):
    """How the way to a server is encrypted, and whether the server proves itself."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        """Return whether the server has to prove itself."""
        return self in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_TLS: Final = frozenset({*_FILES, "sslmode", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"})
_OWN: Final = frozenset({"user", "password", "dbname", "database", "host", "port", "passfile", "connect_timeout"})
_PASSED_OVER: Final = frozenset({"target_session_attrs"})  # what takes nothing is passed over in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host as named: a name, an address, or the folder of a socket."""

    name: str
    port: int

    @property
    def is_here(self) -> bool:
        """Return whether it is this machine."""
        if self.name.startswith("/") or self.name == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False

    @property
    def is_name(self) -> bool:
        """Return whether it has to be looked up."""
        if self.name.startswith("/"):
            return False
        try:
            ipaddress.ip_address(self.name)
        except ValueError:
            return True
        return False

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One address of a host."""

    host: Host
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What an address says."""

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str
    passfile: str | None
    host_s: float | None  # how long each server may take to let us in
    tls: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str]  # of the session

    def tls_of(self, host: Host) -> "ssl.SSLContext | str | bool":
        """Return what the driver wants to know of the encryption; raises StoreRefused where a file cannot be used."""
        if host.name.startswith("/"):
            return False
        mode = SslMode(self.tls.get("sslmode") or (SslMode.PREFER if host.is_here else SslMode.VERIFY_FULL))
        if mode is SslMode.DISABLE:
            return False
        if mode in (SslMode.ALLOW, SslMode.PREFER):
            return mode.value
        return _context(mode, self.tls, host.name)


def parsed(url: str) -> Address:
    """Take an address apart; raises StoreRefused where it is not understood. No word of it is said: it is secret."""
    try:
        authority, path, query = _parts(url)
        login, _, netloc = authority.rpartition("@")
        user, _, password = login.partition(":")
        options = {name: value for name, value in parse_qsl(query, strict_parsing=bool(query)) if value}
        hosts = _hosts(netloc or options.get("host", ""), options.get("port", ""))
        settings = _settings(options)
    except ValueError:
        raise StoreRefused(f"the address is not understood: it must be {FORM}") from None
    if "service" in options:
        raise StoreRefused(f"a service file is not read: write the address out, {FORM}")
    database = unquote(path) or options.get("dbname") or options.get("database") or ""
    mode = options.get("sslmode")
    if mode is not None and mode not in set(SslMode):
        raise StoreRefused(f"sslmode must be one of {', '.join(SslMode)}")
    timeout = options.get("connect_timeout", "")
    return Address(
        hosts=hosts,
        user=unquote(user) or options.get("user"),
        password=unquote(password) or options.get("password"),
        database=database,
        passfile=options.get("passfile"),
        host_s=float(timeout) if timeout.isdecimal() and int(timeout) else None,
        tls={name: value for name, value in options.items() if name in _TLS},
        settings=settings,
    )


def _parts(url: str) -> tuple[str, str, str]:
    """Return login and hosts, path and query; the standard library takes several hosts for a wrong one."""
    found = _FORM.fullmatch(url)
    if found is None:
        raise ValueError
    return found[1], found[2] or "", found[3] or ""


def _hosts(netloc: str, ports: str) -> tuple[Host, ...]:
    """Return the hosts; raises ValueError."""
    listed = [int(port) for port in ports.split(",")] if ports else []
    found = []
    for place, text in enumerate(netloc.split(",")):
        if text.startswith("["):
            name, _, port = text[1:].partition("]")
            port = port.removeprefix(":")
        else:
            name, _, port = text.partition(":")
        given = int(port) if port else listed[place] if place < len(listed) else listed[-1] if listed else PORT
        if not name:
            raise ValueError
        found.append(Host(name=unquote(name), port=given))
    return tuple(found)


def _settings(options: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the session: what is no option of the connection, and those of `options=-c name=value`.

    Raises ValueError.
    """
    found = {
        name: value
        for name, value in options.items()
        if name not in _TLS | _OWN | _PASSED_OVER and not name.startswith(("ssl", "gss", "krb", "keepalives"))
    }
    words = shlex.split(found.pop("options", ""))
    while words:
        word = words.pop(0)
        text = words.pop(0) if word == "-c" and words else word.removeprefix("-c").removeprefix("--")
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError
        found[name.replace("-", "_")] = value
    return found


# ---- where they are -------------------------------------------------------------------------------------------------


async def look_up(host: Host) -> list[str]:
    """Return the addresses that the name of a host has now; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


# ---- encryption -----------------------------------------------------------------------------------------------------


class _Named(ssl.SSLContext):
    """A context for a server that is reached by its address, and has to prove its name."""

    name: str

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401 - those of the standard library
        """Ask for the name, whatever the driver says."""
        return super().wrap_bio(*args, **{**kwargs, "server_hostname": self.name})


def _context(mode: SslMode, tls: Mapping[str, str], name: str) -> ssl.SSLContext:
    """Return a context; raises StoreRefused where a file cannot be used."""
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.set_alpn_protocols(["postgresql"])
    context.minimum_version = _version(tls.get("ssl_min_protocol_version", "TLSv1.2"))
    if "ssl_max_protocol_version" in tls:
        context.maximum_version = _version(tls["ssl_max_protocol_version"])
    root = tls.get("sslrootcert")
    context.check_hostname = mode is SslMode.VERIFY_FULL
    if not mode.verifies and root is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, root)
    if "sslcrl" in tls:
        _load("sslcrl", lambda: context.load_verify_locations(cafile=tls["sslcrl"]))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if "sslcert" in tls:
        key, password = tls.get("sslkey"), tls.get("sslpassword", "")
        _load("sslcert or sslkey", lambda: context.load_cert_chain(tls["sslcert"], key, password))
    return context


def _trust(context: ssl.SSLContext, root: str | None) -> None:
    """Trust the issuers in a file, in that of the user, or those that the system trusts."""
    with contextlib.suppress(RuntimeError):  # there may be no home
        own = Path.home() / ".postgresql" / "root.crt"
        root = str(own) if root is None and own.is_file() else root
    if root is None or root == "system":
        context.load_default_certs()
    else:
        _load("sslrootcert", lambda: context.load_verify_locations(cafile=root))


def _load(option: str, load: Callable[[], object]) -> None:
    try:
        load()
    except ssl.SSLError:
        raise StoreRefused(f"{option} names a file without a certificate or key that can be used") from None
    except OSError as error:
        raise StoreRefused(f"{option} names a file that cannot be read ({error.strerror})") from None


def _version(text: str) -> ssl.TLSVersion:
    try:
        return ssl.TLSVersion[text.replace(".", "_")]
    except KeyError:
        raise StoreRefused("ssl_min_protocol_version and ssl_max_protocol_version must be TLSv1.2 or TLSv1.3") from None

"""What the address of a database must look like, and which words of it are secret.

Rules:
- No problem shows a word of the address: it holds a password.
- An address may name several hosts, which the standard library takes for a wrong one.

Source: PostgreSQL documentation, "Connection URIs" and "Parameter Key Words".
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, unquote

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_ADDRESS: Final = re.compile(r"postgres(?:ql)?://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?")
_UNREADABLE: Final = (
    "must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with any of /?#[]@:% in the password as %2F and so on"
)
_HIGHEST_PORT: Final = 65_535
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::(\d{1,5}))?")


def is_database(url: str) -> bool:
    """Tell whether an address means a database rather than a file."""
    return url.startswith(("postgresql:", "postgres:"))


def problems(url: str) -> Iterator[str]:
    """Yield what is wrong with the address of a database."""
    found = _ADDRESS.fullmatch(url)
    if found is None or re.search(r"[\[\]]", found[1].rpartition("@")[0]):
        yield _UNREADABLE
        return
    options = parse_qs(found[3] or "")
    hosts = found[1].rpartition("@")[2]
    if not hosts and "host" not in options:
        yield "names no host: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    if hosts and not all(map(_is_host, hosts.split(","))):
        yield _UNREADABLE
    if not (found[2] or "").strip("/") and "dbname" not in options and "database" not in options:
        yield "names no database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    if "password" in options:
        yield "the password belongs before the host: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    if any(mode not in SSL_MODES for mode in options.get("sslmode", ())):
        yield f"sslmode must be one of {', '.join(SSL_MODES)}"


def _is_host(text: str) -> bool:
    """Tell whether a text is a host, with a port or without."""
    found = _HOST.fullmatch(text)
    return found is not None and int(found[1] or 0) <= _HIGHEST_PORT


def secrets(url: str) -> Iterator[str]:
    """Yield the secret words of an address, as they are and as they are written."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return
    password = found[1].rpartition("@")[0].partition(":")[2]
    yield from (password, unquote(password))
    yield from parse_qs(found[3] or "").get("sslpassword", ())

"""Credentials that are renewed while the daemon runs: a database's password that lives an hour."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.sandbox.database import USER
from tests.life.stage import Bridge, bridged, until, vehicle
from tests.postgres import PASSWORD, Server

NOWHERE = "http://127.0.0.1:9"
HOURLY = "hourly"  # a role
ANOTHER = "the address leads to another store than the one that was opened"
REFUSED = "the server refuses user or password (28P01)"
FIRST, SECOND = "canary-hour-1-f3", "canary-hour-2-9c"


@pytest.fixture
def url(own: Server) -> Iterator[str]:
    """Make a role whose password changes; return the address of a store of its own."""
    own.execute(f"CREATE ROLE {HOURLY} SUPERUSER LOGIN PASSWORD '{FIRST}'")
    yield own.fresh().replace(f"{USER}:{PASSWORD}", f"{HOURLY}:{FIRST}")
    own.execute(f"REASSIGN OWNED BY {HOURLY} TO CURRENT_USER")
    own.execute(f"DROP ROLE {HOURLY}")


def renew(server: Server) -> None:
    """Let an hour pass: another password, and the sessions with the old one end."""
    server.execute(f"ALTER ROLE {HOURLY} PASSWORD '{SECOND}'")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", HOURLY)


def accepts(bridge: Bridge) -> bool:
    return bridge.post("vehicle.update", vehicle("user", "car", 50)).status_code == 202


def silent(bridge: Bridge) -> None:
    """See that no password was said."""
    assert [] == [word for word in (FIRST, SECOND, PASSWORD) if word in bridge.text()]


def reloaded(bridge: Bridge) -> dict[str, list[str]]:
    """Send SIGHUP; return what was told of it."""
    before = bridge.text().count('"reloaded"')
    assert bridge.process is not None
    bridge.process.send(signal.SIGHUP)
    until(lambda: bridge.text().count('"reloaded"') > before, "it has read its configuration")
    line = [line for line in bridge.text().splitlines() if '"reloaded"' in line][-1]
    found: dict[str, list[str]] = json.loads(line)
    return {name: found[name] for name in ("applied", "needs_restart")}


def test_a_password_in_a_file_is_read_anew_for_each_session(tmp_path: Path, own: Server, url: str) -> None:
    secret = tmp_path / "store_url"
    secret.write_text(url + "\n")
    with bridged(tmp_path, NOWHERE, store={"url": "", "url_file": str(secret)}) as bridge:
        bridge.start()
        until(lambda: accepts(bridge), "it accepts")
        secret.write_text(url.replace(FIRST, SECOND) + "\n")
        renew(own)
        until(lambda: accepts(bridge), "it accepts with the new password")
        secret.write_text("")  # somebody is writing it just now
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", HOURLY)
        secret.write_text(url.replace(FIRST, SECOND))
        until(lambda: accepts(bridge), "it accepts again")
        assert 0 == bridge.stop()
        silent(bridge)


def test_a_password_in_the_configuration_is_in_force_after_sighup_as_it_says(
    tmp_path: Path, own: Server, url: str
) -> None:
    with bridged(tmp_path, NOWHERE, store={"url": url}) as bridge:
        bridge.start()
        until(lambda: accepts(bridge), "it accepts")
        renew(own)
        until(lambda: bridge.health()["store"]["cause"] == REFUSED, "the old one is refused")
        bridge.configure(store={"url": url.replace(FIRST, SECOND)})
        assert {"applied": ["store.url"], "needs_restart": []} == reloaded(bridge)
        until(lambda: accepts(bridge), "it accepts with the new password")
        assert {"applied": [], "needs_restart": []} == reloaded(bridge)
        assert 0 == bridge.stop()
        silent(bridge)


def test_an_address_that_comes_to_lead_to_another_store_is_not_used(tmp_path: Path, own: Server, url: str) -> None:
    """Half of what a replica writes would be in the one, half in the other."""
    secret = tmp_path / "store_url"
    secret.write_text(url)
    other = own.fresh()
    with bridged(tmp_path, NOWHERE, store={"url": "", "url_file": str(secret)}) as bridge:
        bridge.start()
        until(lambda: accepts(bridge), "it accepts")
        for wrong in (other, url.replace("search_path=", "search_path=no_")):  # one is empty, one is not there
            secret.write_text(wrong)
            own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", HOURLY)
            until(lambda: bridge.health()["store"]["cause"] == ANOTHER, "the other one is not used")
            assert not accepts(bridge)
            secret.write_text(url)
            until(lambda: accepts(bridge), "it accepts again")
        assert 0 == bridge.stop()
        silent(bridge)


def test_another_file_for_the_store_needs_a_restart(tmp_path: Path) -> None:
    with bridged(tmp_path, NOWHERE) as bridge:
        bridge.start()
        bridge.configure(store={"url": f"sqlite:///{tmp_path / 'other.db'}"})
        assert {"applied": [], "needs_restart": ["store.url"]} == reloaded(bridge)
        assert accepts(bridge)
        assert not (tmp_path / "other.db").exists()
        assert 0 == bridge.stop()

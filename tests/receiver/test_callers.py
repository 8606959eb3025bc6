"""Where a request comes from: networks, and the proxies that are believed."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.receiver.addresses import client_address
from tests.receiver.conftest import OPEN, PATH, SIGNED, house, request, served, settings

PROXIES = tuple(ip_network(each) for each in ("10.0.0.0/8", "fd00::/8"))


def caller(peer: str | None, *forwarded: bytes) -> str:
    scope: dict[str, Any] = {
        "client": None if peer is None else (peer, 1),
        "headers": [(b"x-forwarded-for", value) for value in forwarded],
    }
    return str(client_address(scope, PROXIES))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", [b"203.0.113.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.1, 10.9.9.9"], "203.0.113.1"),
        ("10.0.0.1", [b"1.1.1.1", b"203.0.113.1 ,10.9.9.9"], "203.0.113.1"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [b"203.0.113.1:4711"], "203.0.113.1"),
        ("10.0.0.1", [b"[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", [b"2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", [b"203.0.113.1, unknown"], "None"),
        ("10.0.0.1", [b"203.0.113.1, \xff"], "None"),
        ("::ffff:10.0.0.1", [b"203.0.113.1"], "203.0.113.1"),
        ("fd00::1", [b"::ffff:203.0.113.1"], "203.0.113.1"),
        (None, [b"203.0.113.1"], "None"),
    ],
)
def test_the_caller_is_the_last_address_that_is_no_trusted_proxy(
    peer: str | None, forwarded: list[bytes], expected: str
) -> None:
    assert expected == caller(peer, *forwarded)


@given(
    peer=st.sampled_from(["10.0.0.1", "fd00::1", "198.51.100.7", ""]),
    forwarded=st.lists(st.binary(max_size=40), max_size=3),
)
def test_any_header_gives_an_address_or_none(peer: str, forwarded: list[bytes]) -> None:
    assert caller(peer, *forwarded)


@pytest.mark.anyio
async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy() -> None:
    chosen = settings(OPEN | {"allowed_networks": ["203.0.113.0/24"]}, trusted_proxies=["10.0.0.0/8"])
    proxy, stranger = house(chosen, address="10.0.0.1"), house(chosen, address="198.51.100.7")
    assert 202 == (await proxy.post(x_forwarded_for="203.0.113.9")).status_code
    assert 403 == (await proxy.post(x_forwarded_for="203.0.113.9, 198.51.100.7")).status_code
    assert 403 == (await proxy.post()).status_code
    assert 403 == (await stranger.post(x_forwarded_for="203.0.113.9")).status_code


@pytest.mark.anyio
async def test_an_unnamed_caller_is_refused_only_where_no_subscription_takes_its_address() -> None:
    near, far = (
        SIGNED | {"allowed_networks": ["10.0.0.0/8"]},
        SIGNED | {"id": "sub-2", "allowed_networks": ["192.0.2.0/24"]},
    )
    body = b'{"topic": "sub-1.vehicle.update", "data": {}}'
    assert 403 == (await house(settings(near, far), address="198.51.100.7").post("/webhooks", body)).status_code
    assert 401 == (await house(settings(near, far), address="192.0.2.1").post("/webhooks", body)).status_code
    assert (
        401
        == (
            await house(settings(near, SIGNED | {"id": "sub-3"}), address="8.8.8.8").post("/webhooks", body)
        ).status_code
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("address", "network", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", 202),
        ("11.1.2.3", "10.0.0.0/8", 403),
        ("::ffff:10.1.2.3", "10.0.0.0/8", 202),
        ("::ffff:11.1.2.3", "10.0.0.0/8", 403),
        ("10.1.2.3", "::ffff:10.0.0.0/104", 202),
        ("::ffff:10.1.2.3", "::ffff:10.0.0.0/104", 202),
        ("::ffff:11.1.2.3", "::ffff:10.0.0.0/104", 403),
        ("2001:db8::7", "2001:db8::/32", 202),
        ("2001:DB8:0:0::7", "2001:db8::/32", 202),
        ("2001:db9::7", "2001:db8::/32", 403),
        ("10.1.2.3", "2001:db8::/32", 403),
        ("fe80::1%eth0", "fe80::/10", 202),
        ("", "0.0.0.0/0", 403),
        ("/run/bridge.sock", "0.0.0.0/0", 403),
    ],
)
async def test_networks_hold_for_both_families_and_for_mapped_addresses(
    address: str, network: str, expected: int
) -> None:
    direct = house(settings(OPEN | {"allowed_networks": [network]}), address=address)
    assert expected == (await direct.post()).status_code
    behind = house(
        settings(OPEN | {"allowed_networks": [network]}, trusted_proxies=["192.0.2.0/24"]), address="192.0.2.9"
    )
    assert expected == (await behind.post(x_forwarded_for=f"203.0.113.1, {address}")).status_code


@pytest.mark.anyio
@pytest.mark.parametrize(
    "forged",
    [
        {"x_forwarded_for": "10.0.0.9"},
        {"x_forwarded_for": "10.0.0.9, 10.0.0.9"},
        {"x_forwarded_for": ""},
        {"x_real_ip": "10.0.0.9"},
        {"forwarded": "for=10.0.0.9"},
        {"true_client_ip": "10.0.0.9"},
        {"cf_connecting_ip": "10.0.0.9"},
        {"x_client_ip": "10.0.0.9"},
    ],
    ids=str,
)
async def test_no_header_moves_a_stranger_into_the_network(forged: dict[str, str]) -> None:
    chosen = settings(OPEN | {"allowed_networks": ["10.0.0.0/8"]}, trusted_proxies=["192.0.2.9"])
    assert 403 == (await house(chosen, address="198.51.100.7").post(PATH, b"{}", **forged)).status_code
    behind = {name: f"{value}, 198.51.100.7" if "forwarded_for" in name else value for name, value in forged.items()}
    behind.setdefault("x_forwarded_for", "198.51.100.7")
    assert 403 == (await house(chosen, address="192.0.2.9").post(PATH, b"{}", **behind)).status_code


@pytest.mark.anyio
async def test_the_server_itself_believes_no_header_either() -> None:
    """uvicorn would, from this machine."""
    near = settings(OPEN | {"allowed_networks": ["10.0.0.0/8"]})
    async with served(near) as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"{}", "x-forwarded-for: 10.0.0.9"))
        assert 403 == (await wire.answer())[0]
    proxy = settings(OPEN | {"allowed_networks": ["10.0.0.0/8"]}, trusted_proxies=["127.0.0.1"])
    async with served(proxy) as bridge:
        wire = await bridge.connect()
        for hop, expected in (("10.0.0.9", 202), ("10.0.0.9, 198.51.100.7", 403)):
            await wire.send(request(b"{}", f"x-forwarded-for: {hop}"))
            assert expected == (await wire.answer())[0]


@pytest.mark.anyio
async def test_a_subscription_that_comes_by_kafka_is_unknown_at_the_door() -> None:
    only = house(settings({"id": "sub-1", "auth": "kafka"}))
    assert [404, 401] == [
        (await only.post(path)).status_code for path in ("/webhooks/sub-1.vehicle.update", "/webhooks")
    ]
    assert [] == only.store.taken

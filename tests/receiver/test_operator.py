"""The operator's page and data: absent without a token, closed without the right one."""

import base64

import pytest

from tests.receiver.conftest import house, settings

pytestmark = pytest.mark.anyio

TOKEN = "made-up-admin-tökén"
BEARER = {b"authorization": f"Bearer {TOKEN}".encode()}
BASIC = {b"authorization": b"Basic " + base64.b64encode(f"anybody:{TOKEN}".encode())}
ADDRESSES = ["/", "/api/census", "/api/", "/api/nothing/here"]


@pytest.mark.parametrize("path", ADDRESSES)
async def test_without_a_configured_token_there_is_nothing(path: str) -> None:
    built = house(settings())
    for headers in (
        {b"x": b""},
        BEARER,
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic " + base64.b64encode(b":")},
    ):
        got = await built.client.get(path, headers=headers)
        assert (404, {"error": "not found"}) == (got.status_code, got.json())


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize(
    "offered", [None, "", "Bearer", "Bearer wrong", "Basic !", "Basic é", TOKEN, f"Bearer {TOKEN}x"]
)
async def test_a_missing_or_wrong_token_is_401(path: str, offered: str | None) -> None:
    built = house(settings(admin_token=TOKEN))
    got = await built.client.get(path, headers={} if offered is None else {b"authorization": offered.encode()})
    assert 401 == got.status_code
    assert TOKEN not in got.text
    assert "Basic" in got.headers["www-authenticate"]


@pytest.mark.parametrize("headers", [BEARER, BASIC], ids=["bearer", "basic"])
async def test_with_the_token_there_are_numbers_for_people_and_programs(headers: dict[bytes, bytes]) -> None:
    built = house(settings(admin_token=TOKEN))
    await built.post()
    page = await built.client.get("/", headers=headers)
    assert (200, True) == (page.status_code, page.headers["content-type"].startswith("text/html"))
    assert "accepted" in page.text
    data = await built.client.get("/api/census", headers=headers)
    assert 1 == data.json()["ledger"]["accepted"]
    assert 404 == (await built.client.get("/api/nothing", headers=headers)).status_code
    assert 405 == (await built.client.post("/api/census", headers=headers)).status_code


async def test_reload_takes_another_token() -> None:
    built = house(settings(admin_token=TOKEN))
    built.receiver.reload(settings(admin_token="another"))
    assert 401 == (await built.client.get("/", headers=BEARER)).status_code
    assert 200 == (await built.client.get("/", headers={"authorization": "Bearer another"})).status_code

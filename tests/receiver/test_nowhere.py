"""What is no address costs next to nothing; what is one is answered as before."""

import pytest

from tests.receiver.conftest import TOPIC, House, house, settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/x", "/.env", "/webhooks/", "/webhooks/a/b", "/webhooksx", "/apix", "/health/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
async def test_an_unknown_address_is_a_constant_answer(
    door: House, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.receiver.app, "_pages", None)  # no router, no middleware
    got = await door.client.request(method, path)
    assert (404, {"error": "not found"}) == (got.status_code, got.json())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/webhooks/{TOPIC}", 200),
        ("HEAD", f"/webhooks/{TOPIC}", 200),
        ("GET", "/webhooks", 200),
        ("GET", "/webhooks/other.vehicle.update", 404),
        ("OPTIONS", f"/webhooks/{TOPIC}", 200),
        ("PUT", f"/webhooks/{TOPIC}", 405),
        ("PUT", "/webhooks", 405),
        ("GET", "/health", 200),
        ("HEAD", "/health/live", 200),
        ("POST", "/health", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
        ("GET", "/", 401),
        ("GET", "/api/census", 401),
        ("GET", "/api/", 401),
    ],
)
async def test_a_known_address_is_answered(method: str, path: str, status: int) -> None:
    built = house(settings(admin_token="a-token-that-nobody-guesses"))
    assert status == (await built.client.request(method, path)).status_code

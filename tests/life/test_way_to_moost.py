"""The way from the bridge to MOOST where it is blocked: each cause in its own words, wherever an operator looks."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import proxy
from tests.certificates import NAME, Authority, Certificate
from tests.life.stage import CLIENT_SECRET, Bridge, Sandbox, ask, bridged, run, until, vehicle
from tests.proxy import proxied

Server = Callable[..., int]
"""Serves one answer, whatever is asked; returns the port."""

LOGIN: Final = b"<!DOCTYPE html><html><form>Please log in</form></html>"


def answer(status: int, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """Run an event loop of its own for servers, so that commands can be waited for beside it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[asyncio.Server] = []

    async def listen(said: bytes, certificate: Certificate | None) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(said)
                await writer.drain()
            writer.close()

        context = None
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.certificate, certificate.key)
        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        return int(servers[-1].sockets[0].getsockname()[1])

    def start(said: bytes, certificate: Certificate | None = None) -> int:
        return asyncio.run_coroutine_threadsafe(listen(said, certificate), loop).result(10)

    async def close() -> None:
        for server in servers:
            server.close()

    try:
        yield start
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as start:
        yield start


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound, not listening
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def checked(folder: Path, url: str) -> str:
    """Return the one line that `check --online` says of MOOST."""
    with bridged(folder, url) as bridge:
        done = run("check", "--online", "--config", bridge.configure())
    assert 2 == done.returncode
    (line,) = done.stderr.splitlines()
    assert CLIENT_SECRET not in done.stderr
    return line


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (answer(404), "no token: status 404: there is nothing at this address"),
        (answer(503), "no token: status 503"),
        (answer(302), "no token: status 302: a redirect to another address"),
        (answer(200, LOGIN), "no token: status 200 with a web page instead of JSON"),
        (b"220 mail.example ESMTP\r\n", "no token: the answer is not HTTP"),
        (b"", "no token: connection closed before an answer"),
    ],
    ids=["404", "503", "redirect", "login page", "no HTTP", "nothing"],
)
def test_check_says_what_is_wrong_with_the_answer(tmp_path: Path, server: Server, said: bytes, problem: str) -> None:
    assert f"moost.base_url: {problem}" == checked(tmp_path, f"http://127.0.0.1:{server(said)}")


def test_check_says_that_nothing_listens(tmp_path: Path, closed_port: int) -> None:
    expected = "moost.base_url: no token: connection refused: nothing listens there"
    assert expected == checked(tmp_path, f"http://127.0.0.1:{closed_port}")


def test_check_says_that_a_name_is_unknown(tmp_path: Path) -> None:
    found = checked(tmp_path, "https://moost.invalid")
    assert found.removeprefix("moost.base_url: no token: ") in {
        "name unknown",
        "name not resolved: the DNS does not answer",  # without any network
    }


def test_check_says_who_issued_a_certificate_that_is_not_trusted(tmp_path: Path, server: Server) -> None:
    authority = Authority(tmp_path)
    url = f"https://localhost:{server(answer(200), authority.issue('localhost'))}"
    assert f"moost.base_url: no token: certificate not trusted: issued by {NAME}" == checked(tmp_path, url)


def test_check_trusts_the_certificates_of_a_file(tmp_path: Path, server: Server) -> None:
    authority = Authority(tmp_path)
    token = json.dumps({"access_token": "opaque", "expires_in": "3600"}).encode()
    url = f"https://localhost:{server(answer(200, token), authority.issue('localhost'))}"
    with bridged(tmp_path, url, moost={"ca_file": str(authority.file)}) as bridge:
        done = run("check", "--online", "--config", bridge.configure())
    assert (0, "") == (done.returncode, done.stderr)


def test_everything_goes_by_the_proxy_that_alone_knows_moost(tmp_path: Path, sandbox: Sandbox) -> None:
    url = sandbox.url.replace("127.0.0.1", proxy.NAME)
    with proxied(tmp_path, credentials=True) as way:
        secret = tmp_path / "proxy-address"
        secret.write_text(way.url(proxy.USER, proxy.PASSWORD) + "\n")
        settings = {"insecure": True, "proxy_file": str(secret)}
        with bridged(tmp_path, url, moost=settings) as bridge:
            checked_ = run("check", "--online", "--config", bridge.configure())
            bridge.start()
            bridge.take("vehicle.update", vehicle("user-1", "car", 50))
            health = bridge.settled()
            secret.write_text(way.url(proxy.USER, "wrong") + "\n")
            refused = run("check", "--online", "--config", bridge.configure())
            log = bridge.text()
        asked = way.asked()
    assert (0, "") == (checked_.returncode, checked_.stderr)
    assert [] == health["problems"]
    assert [50] == [event["value"] for event in sandbox.events()]
    assert [f"POST {url}/events/v1"] == [line for line in asked if "/events/" in line]
    assert 2 == refused.returncode
    for text in (log, checked_.stdout, refused.stderr, json.dumps(health)):
        assert proxy.PASSWORD not in text


def test_check_says_that_the_credentials_are_refused(tmp_path: Path, server: Server) -> None:
    expected = "moost.client_secret: client_id and client_secret are refused: status 401"
    assert expected == checked(tmp_path, f"http://127.0.0.1:{server(answer(401))}")


@pytest.fixture
def bridge(tmp_path: Path, closed_port: int) -> Iterator[Bridge]:
    with bridged(tmp_path, f"http://127.0.0.1:{closed_port}") as prepared:
        prepared.start()
        yield prepared


def test_health_log_and_explain_say_why_moost_is_not_reached(bridge: Bridge) -> None:
    cause = "connection refused: nothing listens there"
    message = bridge.post("vehicle.update", vehicle("user-1", "car", 50)).json()["ids"][0]
    health = until(
        lambda: found if (found := ask("GET", f"{bridge.url}/health").json())["moost"]["cause"] else None, "a cause"
    )
    assert cause == health["moost"]["cause"]
    assert ["moost_unreachable"] == health["problems"]

    def told() -> str | None:
        (trip,) = json.loads(run("explain", message, "--json", "--config", bridge.config).stdout)
        return str(trip["moost_cause"]) if trip["moost_cause"] else None

    assert cause == until(told, "explain says it")
    assert f"MOOST  is not reached: {cause}" in run("explain", message, "--config", bridge.config).stdout
    assert bridge.process is not None
    lines = [json.loads(line) for line in bridge.process.text().splitlines()]
    assert [("moost_unreachable", cause)] == [
        (line["problem"], line["cause"]) for line in lines if line["event"] == "sender_paused"
    ]

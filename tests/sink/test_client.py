"""The wire, against real sockets: what was surely not sent, what may have been, and what never leaks."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import respx

from bridge.config import Moost
from bridge.sink import encode
from bridge.sink.classify import Failure, Reply
from bridge.sink.client import MoostClient
from bridge.sink.encode import WireCall

Make = Callable[..., Moost]


class Server(Protocol):
    """The raw server of conftest."""

    requests: list[bytes]
    answer: bytes | None
    close: bool
    read_first: bool
    base_url: str

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...


pytestmark = pytest.mark.anyio
CALL = encode.live(b'{"value":1}')
TOKEN = "canary-token-0123456789"
SECRET = "canary-secret-0123456789"


async def test_a_call_carries_method_path_token_and_body(server: Server, moost: Make) -> None:
    async with MoostClient(moost(base_url=server.base_url)) as client:
        reply = await client.call(CALL, TOKEN)

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert Reply(status=201) == reply
    assert b"post /events/v1 http/1.1" == lines[0]
    assert f"authorization: bearer {TOKEN}".encode() in lines
    assert b"content-type: application/json" in lines
    assert b'{"value":1}' == body


async def test_a_base_url_with_a_path_is_kept(server: Server, moost: Make) -> None:
    async with MoostClient(moost(base_url=f"{server.base_url}/moost/")) as client:
        await client.call(encode.read("a:b"), TOKEN)

    assert server.requests[0].startswith(b"GET /moost/buildings/a:b/v1 HTTP/1.1")


async def test_the_token_call_carries_id_and_secret_and_no_token(server: Server, moost: Make) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with MoostClient(moost(base_url=server.base_url)) as client:
        reply = await client.fetch_token()

    target = server.requests[0].split(b" ")[1].decode()
    assert Reply(status=200, body=b"{}") == reply
    assert "/auth/token/v1" == urlsplit(target).path
    assert {"clientId": ["client"], "clientSecret": [SECRET]} == parse_qs(urlsplit(target).query)
    assert b"authorization" not in server.requests[0].lower()


async def test_other_credentials_are_taken_without_a_restart(server: Server, moost: Make) -> None:
    async with MoostClient(moost(base_url=server.base_url)) as client:
        client.reload(moost(base_url=server.base_url, client_secret="rotated"))
        await client.fetch_token()

    assert b"clientSecret=rotated" in server.requests[0]


class TestFailures:
    async def test_a_refused_port_is_not_sent(self, moost: Make) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            async with MoostClient(moost(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")) as client:
                assert Failure.NOT_SENT is await client.call(CALL, TOKEN)

    async def test_an_unknown_host_is_not_sent(self, moost: Make) -> None:
        async with MoostClient(moost(base_url="http://nobody.invalid")) as client:
            assert Failure.NOT_SENT is await client.call(CALL, TOKEN)

    async def test_a_connection_that_never_comes_about_is_not_sent(self, moost: Make) -> None:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for taker in (first, second):  # fill the queue of a server that accepts nobody
                taker.setblocking(False)  # noqa: FBT003
                taker.connect_ex(full.getsockname())
            async with MoostClient(
                moost(base_url=f"http://127.0.0.1:{full.getsockname()[1]}", timeout="300ms")
            ) as client:
                assert Failure.NOT_SENT is await client.call(CALL, TOKEN)

    async def test_a_connection_closed_before_the_answer_is_a_lost_reply(self, server: Server, moost: Make) -> None:
        server.answer = b""
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert Failure.LOST is await client.call(CALL, TOKEN)
        assert 1 == len(server.requests)

    async def test_a_connection_closed_without_reading_is_a_lost_reply(self, server: Server, moost: Make) -> None:
        server.read_first = False
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert Failure.LOST is await client.call(CALL, TOKEN)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 201",
            b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"this is no HTTP\r\n\r\n",
        ],
    )
    async def test_a_connection_closed_in_the_middle_is_a_lost_reply(
        self, server: Server, moost: Make, answer: bytes
    ) -> None:
        server.answer = answer
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert Failure.LOST is await client.call(CALL, TOKEN)

    async def test_a_connection_closed_after_the_answer_is_an_answer(self, server: Server, moost: Make) -> None:
        server.answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        async with MoostClient(moost(base_url=server.base_url)) as client:
            replies = [await client.call(CALL, TOKEN) for _ in range(3)]

        assert [Reply(status=201)] * 3 == replies
        assert 3 == len(server.requests)

    async def test_a_server_that_never_answers_is_a_timeout(self, server: Server, moost: Make) -> None:
        server.answer = None
        async with MoostClient(moost(base_url=server.base_url, timeout="200ms")) as client:
            assert Failure.TIMEOUT is await client.call(CALL, TOKEN)

    async def test_an_answer_that_never_ends_is_cut(self, server: Server, moost: Make) -> None:
        server.answer = b"HTTP/1.1 400 Bad\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (9 * 2**20)
        async with MoostClient(moost(base_url=server.base_url)) as client:
            reply = await client.call(CALL, TOKEN)

        assert isinstance(reply, Reply)
        assert 400 == reply.status
        assert len(reply.body) < 9 * 2**20

    async def test_a_redirect_is_not_followed(self, server: Server, moost: Make) -> None:
        server.answer = f"HTTP/1.1 302 Found\r\nLocation: {server.base_url}/x\r\nContent-Length: 0\r\n\r\n".encode()
        async with MoostClient(moost(base_url=server.base_url)) as client:
            reply = await client.fetch_token()

        assert isinstance(reply, Reply)
        assert 302 == reply.status
        assert 1 == len(server.requests)


async def test_a_connection_is_used_again(server: Server, moost: Make) -> None:
    server.close = False
    connections = []
    serve = server.serve

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await serve(reader, writer)

    listener = await asyncio.start_server(counted, "127.0.0.1", 0)
    async with (
        listener,
        MoostClient(moost(base_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")) as client,
    ):
        for _ in range(5):
            assert Reply(status=201) == await client.call(CALL, TOKEN)

    assert 1 == len(connections)


async def test_retry_after_and_the_answer_come_through(moost: Make) -> None:
    router = respx.Router()
    router.post("http://moost.test/events/v1").respond(429, headers={"Retry-After": "7"}, json={"why": "busy"})
    transport = httpx.MockTransport(router.async_handler)
    async with MoostClient(moost(base_url="http://moost.test"), transport) as client:
        reply = await client.call(CALL, TOKEN)

    assert isinstance(reply, Reply)
    assert (429, "7", b'{"why":"busy"}') == (reply.status, reply.headers["retry-after"], reply.body)


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_no_log_line_and_no_repr_holds_a_secret(
    server: Server,
    moost: Make,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    answer: bytes | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    server.answer = answer
    settings = moost(base_url=server.base_url, timeout="200ms")
    async with MoostClient(settings) as client:
        ends = [await client.fetch_token(), await client.call(CALL, TOKEN)]
        texts = [repr(client), repr(settings), repr(ends), str(ends), repr(WireCall(method="GET", path="/", body=b"x"))]

    out, err = capfd.readouterr()
    said = "\n".join([caplog.text, out, err, *texts])
    assert 1 <= len(server.requests)
    assert SECRET not in said
    assert TOKEN not in said

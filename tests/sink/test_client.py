"""The wire, against real sockets: what was surely not sent, what may have been, and what never leaks."""

import asyncio
import gzip
import logging
import re
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import respx

from bridge.config import Moost
from bridge.logs import MASK
from bridge.sink import causes, encode
from bridge.sink.classify import End, Failure, Reply
from bridge.sink.client import MoostClient
from bridge.sink.encode import WireCall
from bridge.sink.token import Denial, Grant, Trouble, granted
from tests import proxy
from tests.certificates import NAME, Authority, Certificate
from tests.proxy import proxied

Make = Callable[..., Moost]
Tls = Callable[[Certificate], Awaitable[str]]


class Server(Protocol):
    """The raw server of conftest."""

    requests: list[bytes]
    answer: bytes | None
    close: bool
    read_first: bool
    base_url: str
    hang: asyncio.Event

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


def not_sent(cause: str) -> Failure:
    return Failure(end=End.NOT_SENT, cause=cause)


def lost(cause: str) -> Failure:
    return Failure(end=End.LOST, cause=cause)


class TestFailures:
    async def test_a_refused_port_is_not_sent(self, moost: Make) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            async with MoostClient(moost(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")) as client:
                assert not_sent("connection refused: nothing listens there") == await client.call(CALL, TOKEN)

    async def test_an_unknown_host_is_not_sent(self, moost: Make) -> None:
        async with MoostClient(moost(base_url="http://nobody.invalid")) as client:
            failure = await client.call(CALL, TOKEN)

        assert isinstance(failure, Failure)
        assert End.NOT_SENT is failure.end
        assert failure.cause in {"name unknown", "name not resolved: the DNS does not answer"}  # without any network

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
                assert not_sent("timeout while connecting (0.24 s)") == await client.call(CALL, TOKEN)

    async def test_a_connection_closed_before_the_answer_is_a_lost_reply(self, server: Server, moost: Make) -> None:
        server.answer = b""
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert lost("connection closed before an answer") == await client.call(CALL, TOKEN)
        assert 1 == len(server.requests)

    async def test_a_connection_closed_without_reading_is_a_lost_reply(self, server: Server, moost: Make) -> None:
        server.read_first = False
        async with MoostClient(moost(base_url=server.base_url)) as client:
            failure = await client.call(CALL, TOKEN)

        assert isinstance(failure, Failure)
        assert End.LOST is failure.end

    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            (b"HTTP/1.1 201", "connection closed before an answer"),
            (b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{", "the answer broke off"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "the answer broke off"),
            (b"this is no HTTP\r\n\r\n", "the answer is not HTTP"),
        ],
    )
    async def test_a_connection_closed_in_the_middle_is_a_lost_reply(
        self, server: Server, moost: Make, answer: bytes, cause: str
    ) -> None:
        server.answer = answer
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert lost(cause) == await client.call(CALL, TOKEN)

    async def test_a_connection_closed_after_the_answer_is_an_answer(self, server: Server, moost: Make) -> None:
        server.answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        async with MoostClient(moost(base_url=server.base_url)) as client:
            replies = [await client.call(CALL, TOKEN) for _ in range(3)]

        assert [Reply(status=201)] * 3 == replies
        assert 3 == len(server.requests)

    async def test_a_server_that_never_answers_is_a_timeout(self, server: Server, moost: Make) -> None:
        server.answer = None
        async with MoostClient(moost(base_url=server.base_url, timeout="200ms")) as client:
            expected = Failure(end=End.TIMEOUT, cause="timeout while answering (0.2 s)")
            assert expected == await client.call(CALL, TOKEN)

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


class TestTls:
    """A server with a certificate of a private authority."""

    async def test_a_certificate_of_an_unknown_authority_is_not_trusted_and_its_issuer_named(
        self, moost: Make, authority: Authority, tls: Tls
    ) -> None:
        url = await tls(authority.issue("localhost"))
        async with MoostClient(moost(base_url=url)) as client:
            ends = [await client.fetch_token(), await client.call(CALL, TOKEN)]

        assert [not_sent(f"certificate not trusted: issued by {NAME}")] * 2 == ends

    @pytest.mark.parametrize(
        ("names", "span", "cause"),
        [
            (["localhost"], {"ends": "20200102000000Z"}, "certificate expired"),
            (
                ["localhost"],
                {"begins": "20480101000000Z"},
                "certificate not valid yet: is the clock of this machine right?",
            ),
            (["moost.example"], {}, "certificate is for another name"),
        ],
    )
    async def test_what_is_wrong_with_a_certificate_is_told(  # noqa: PLR0913, PLR0917
        self,
        moost: Make,
        authority: Authority,
        tls: Tls,
        monkeypatch: pytest.MonkeyPatch,
        names: list[str],
        span: dict[str, str],
        cause: str,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))  # it is trusted
        url = await tls(authority.issue(*names, **span))
        async with MoostClient(moost(base_url=url)) as client:
            assert not_sent(cause) == await client.fetch_token()

    async def test_a_server_that_speaks_no_tls_is_told(self, moost: Make) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with listener, MoostClient(moost(base_url=url)) as client:
            assert not_sent("TLS handshake failed: the other side does not speak TLS") == await client.fetch_token()

    async def test_an_issuer_that_cannot_be_found_out_is_left_out(
        self, moost: Make, authority: Authority, tls: Tls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def no_connection(*_: object, **__: object) -> None:
            raise OSError("no more files")

        url = await tls(authority.issue("localhost"))
        monkeypatch.setattr(MoostClient, "_certificate", no_connection)
        async with MoostClient(moost(base_url=url)) as client:
            assert not_sent("certificate not trusted") == await client.fetch_token()

    async def test_a_file_of_certificates_is_trusted_alone(self, moost: Make, authority: Authority, tls: Tls) -> None:
        url = await tls(authority.issue("localhost"))
        async with MoostClient(moost(base_url=url, ca_file=str(authority.file))) as client:
            assert Reply(status=201) == await client.fetch_token()
            assert 1 == len(client._context.get_ca_certs())

    async def test_another_file_counts_from_the_next_call_on(self, moost: Make, authority: Authority, tls: Tls) -> None:
        url = await tls(authority.issue("localhost"))
        async with MoostClient(moost(base_url=url)) as client:
            before = await client.fetch_token()
            client.reload(moost(base_url=url, ca_file=str(authority.file)))
            after = await client.fetch_token()

        assert isinstance(before, Failure)
        assert Reply(status=201) == after


class TestAge:
    """A name that points elsewhere now, or to several addresses."""

    @pytest.fixture
    def names(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        real = asyncio.BaseEventLoop.getaddrinfo

        async def look(loop: asyncio.BaseEventLoop, host: str, port: int, **options: Any) -> list[Any]:  # noqa: ANN401
            known = names.get(host, [host])
            return [found for address in known for found in await real(loop, address, port, **options)]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look)
        return names

    @pytest.fixture
    async def twins(self, server: Server) -> AsyncIterator[tuple[int, Counter[str]]]:
        """Serve at two addresses, on one port, and count the calls of each; connections stay open."""
        calls, listeners = Counter[str](), []
        server.close, server.answer = False, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"

        def at(address: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while await reader.read(65_536):
                    calls[address] += 1
                    writer.write(server.answer or b"")
                writer.close()

            return serve

        listeners = [await asyncio.start_server(at("127.0.0.2"), "127.0.0.2", 0)]
        port = listeners[0].sockets[0].getsockname()[1]
        listeners.append(await asyncio.start_server(at("127.0.0.3"), "127.0.0.3", port))
        yield port, calls
        for each in listeners:
            each.close()

    async def test_under_steady_traffic_a_name_that_moved_is_followed(
        self,
        moost: Make,
        monkeypatch: pytest.MonkeyPatch,
        names: dict[str, list[str]],
        twins: tuple[int, Counter[str]],
    ) -> None:
        port, calls = twins
        names["moost.example"] = ["127.0.0.2"]
        monkeypatch.setattr("bridge.sink.client.GREATEST_AGE_S", 0.3)
        async with MoostClient(moost(base_url=f"http://moost.example:{port}")) as client:
            for number in range(40):
                if number == 5:
                    names["moost.example"] = ["127.0.0.3"]
                assert Reply(status=201) == await client.call(CALL, TOKEN)
                await asyncio.sleep(0.03)

        assert calls["127.0.0.2"] >= 5
        assert calls["127.0.0.3"] >= 10

    async def test_a_call_on_old_connections_is_not_cut(
        self, moost: Make, monkeypatch: pytest.MonkeyPatch, server: Server
    ) -> None:
        monkeypatch.setattr("bridge.sink.client.GREATEST_AGE_S", 0.05)
        server.answer = None
        async with MoostClient(moost(base_url=server.base_url)) as client:
            slow = asyncio.create_task(client.call(CALL, TOKEN))
            await asyncio.sleep(0.2)
            server.answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
            assert Reply(status=201) == await client.call(CALL, TOKEN)
            server.hang.set()
            failure = await slow

        assert lost("connection closed before an answer") == failure

    async def test_all_addresses_of_a_name_are_used(
        self,
        moost: Make,
        monkeypatch: pytest.MonkeyPatch,
        names: dict[str, list[str]],
        twins: tuple[int, Counter[str]],
    ) -> None:
        port, calls = twins
        names["moost.example"] = ["127.0.0.2", "127.0.0.3"]
        monkeypatch.setattr("bridge.sink.client.GREATEST_AGE_S", 0.0)
        async with MoostClient(moost(base_url=f"http://moost.example:{port}")) as client:
            for _ in range(60):  # one of them is left out by chance once in 10^17 times
                await client.call(CALL, TOKEN)

        assert {"127.0.0.2", "127.0.0.3"} == calls.keys()

    async def test_an_address_that_is_dark_is_passed_over(
        self, moost: Make, names: dict[str, list[str]], twins: tuple[int, Counter[str]]
    ) -> None:
        port, calls = twins
        names["moost.example"] = ["127.0.0.4", "127.0.0.3"]  # nothing listens at the first
        async with MoostClient(moost(base_url=f"http://moost.example:{port}")) as client:
            assert [Reply(status=201)] * 5 == [await client.call(CALL, TOKEN) for _ in range(5)]

        assert {"127.0.0.3"} == calls.keys()


class TestProxy:
    """The only way to MOOST is a proxy; only it can resolve MOOST's name."""

    @pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
    @pytest.mark.parametrize("credentials", [False, True], ids=["open", "with credentials"])
    async def test_every_call_goes_by_the_proxy(  # noqa: PLR0913, PLR0917
        self,
        moost: Make,
        tmp_path: Path,
        server: Server,
        authority: Authority,
        tls: Tls,
        encrypted: bool,  # noqa: FBT001
        credentials: bool,  # noqa: FBT001
    ) -> None:
        url = await tls(authority.issue(proxy.NAME)) if encrypted else server.base_url
        url = re.sub(r"localhost|127\.0\.0\.1", proxy.NAME, url)
        ca_file = str(authority.file) if encrypted else ""
        with proxied(tmp_path, credentials=credentials) as way:
            address = way.url(proxy.USER, proxy.PASSWORD) if credentials else way.url()
            async with MoostClient(moost(base_url=url, proxy=address, ca_file=ca_file)) as client:
                ends = [await client.fetch_token(), await client.call(CALL, TOKEN)]
            asked = way.asked()

        assert [Reply(status=201)] * 2 == ends
        host = url.partition("://")[2]
        assert (f"CONNECT {host}" if encrypted else f"GET http://{host}/auth/token/v1") in asked[0]
        assert not any(b"proxy-authorization" in each.lower() for each in server.requests)
        assert SECRET not in way.log.read_text() or not encrypted

    @pytest.mark.parametrize(
        ("scheme", "credentials", "cause"),
        [
            ("http", (), "the proxy says 407: it wants other credentials"),
            ("https", (), "the proxy says 407: it wants other credentials"),
            ("https", (proxy.USER, "wrong"), "the proxy says 401: it wants other credentials"),
        ],
    )
    async def test_a_proxy_that_wants_other_credentials_is_named(
        self, moost: Make, tmp_path: Path, scheme: str, credentials: tuple[str, ...], cause: str
    ) -> None:
        with proxied(tmp_path, credentials=True) as way:
            settings = moost(base_url=f"{scheme}://{proxy.NAME}", proxy=way.url(*credentials))
            async with MoostClient(settings) as client:
                found = granted(await client.fetch_token())

        assert Denial(trouble=Trouble.UNREACHABLE, cause=cause) == found

    async def test_what_the_proxy_cannot_reach_is_named(self, moost: Make, tmp_path: Path) -> None:
        with proxied(tmp_path) as way:
            async with MoostClient(moost(base_url=f"https://{proxy.NAME}:1", proxy=way.url())) as client:
                assert not_sent("the proxy says 500") == await client.fetch_token()

    async def test_a_certificate_that_is_not_trusted_is_named_through_the_proxy_too(
        self, moost: Make, tmp_path: Path, authority: Authority, tls: Tls
    ) -> None:
        url = (await tls(authority.issue(proxy.NAME))).replace("localhost", proxy.NAME)
        with proxied(tmp_path) as way:
            async with MoostClient(moost(base_url=url, proxy=way.url())) as client:
                assert not_sent(f"certificate not trusted: issued by {NAME}") == await client.fetch_token()

    async def test_a_proxy_that_is_not_there_is_named(self, moost: Make) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            way = f"http://127.0.0.1:{taken.getsockname()[1]}"
            async with MoostClient(moost(base_url="https://moost.example", proxy=way)) as client:
                expected = not_sent("the proxy: connection refused: nothing listens there")
                assert expected == await client.fetch_token()

    async def test_the_environment_names_no_proxy(
        self, moost: Make, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert Reply(status=201) == await client.call(CALL, TOKEN)


@pytest.mark.parametrize("certificate", [b"", b"0", b"0\x82\xff\xff0", b"0\x030\x01\x02", bytes(300)])
def test_what_is_no_certificate_names_no_issuer(certificate: bytes) -> None:
    assert "" == causes.issuer_of(certificate)


GZIP = gzip.compress(b'{"message": "no such building"}', mtime=0)
BOMB = gzip.compress(bytes(64 * 2**20))


class TestCompression:
    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", GZIP),
            ("GZIP", GZIP),
            ("x-gzip", GZIP),
            ("deflate", zlib.compress(b'{"message": "no such building"}')),
            ("deflate", zlib.compress(b'{"message": "no such building"}')[2:-4]),
            ("identity", b'{"message": "no such building"}'),
        ],
        ids=["gzip", "in capitals", "x-gzip", "deflate", "bare deflate", "none"],
    )
    async def test_a_compressed_answer_is_read(self, server: Server, moost: Make, coding: str, body: bytes) -> None:
        server.answer = _encoded(400, coding, body)
        async with MoostClient(moost(base_url=server.base_url)) as client:
            reply = await client.call(CALL, TOKEN)

        assert Reply(status=400, body=b'{"message": "no such building"}') == reply

    async def test_a_compressed_token_is_read(self, server: Server, moost: Make) -> None:
        server.answer = _encoded(200, "gzip", gzip.compress(b'{"access_token": "t", "expires_in": 60}'))
        async with MoostClient(moost(base_url=server.base_url)) as client:
            assert isinstance(granted(await client.fetch_token()), Grant)

    async def test_gigabytes_in_a_few_bytes_are_cut(self, server: Server, moost: Make) -> None:
        server.answer = _encoded(400, "gzip", BOMB)
        async with MoostClient(moost(base_url=server.base_url)) as client:
            reply = await client.call(CALL, TOKEN)

        assert isinstance(reply, Reply)
        assert 8 * 2**20 == len(reply.body)

    @pytest.mark.parametrize(
        ("coding", "cause"),
        [
            ("br", "status 200 with a compressed body (br), which was not asked for"),
            ("gzip, gzip", "status 200 with a compressed body (gzip, gzip), which was not asked for"),
            ("gzip", "status 200 with a compressed body (gzip) that is broken"),
        ],
    )
    async def test_what_cannot_be_unpacked_is_named(self, server: Server, moost: Make, coding: str, cause: str) -> None:
        server.answer = _encoded(200, coding, b"\x1b\x2f")
        async with MoostClient(moost(base_url=server.base_url)) as client:
            denial = granted(await client.fetch_token())

        assert Denial(trouble=Trouble.UNREACHABLE, cause=cause) == denial


def _encoded(status: int, coding: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_secrets_and_tokens_are_kept_out_of_answers(moost: Make) -> None:
    router = respx.Router()
    router.post("http://moost.test/events/v1").respond(201)
    transport = httpx.MockTransport(router.async_handler)
    async with MoostClient(moost(base_url="http://moost.test"), transport, secrets=["canary-webhook"]) as client:
        for token in ("canary-old", "canary-new"):
            await client.call(CALL, token)
        client.reload(moost(client_secret="canary-rotated"), ["canary-other"])
        said = client.mask("canary-old canary-new canary-rotated canary-webhook canary-other and more")

    assert " ".join([MASK] * 5) + " and more" == said


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

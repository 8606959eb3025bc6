"""Slow and hostile clients over real sockets: they end, and a normal sender notices nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from bridge.receiver.state import Limits
from tests.receiver.conftest import PATH, Served, Wire, answer, request, served, settings, until

pytestmark = pytest.mark.anyio

HURRY = Limits(
    header_time=timedelta(seconds=0.3),
    body_time=timedelta(seconds=0.3),
    answer_time=timedelta(seconds=0.3),
    idle_time=timedelta(seconds=0.3),
    linger_time=timedelta(seconds=0.3),
)


@asynccontextmanager
async def normal_sender(bridge: Served) -> AsyncIterator[list[float]]:
    """Post one message after the other meanwhile, and note how long each took [s]."""
    took: list[float] = []
    stop = asyncio.Event()

    async def post() -> None:
        async with httpx.AsyncClient(base_url=bridge.url, timeout=30) as client:
            while not stop.is_set() or len(took) < 20:
                begin = time.perf_counter()
                got = await client.post(PATH, json={"id": "x"})
                assert 202 == got.status_code
                took.append(time.perf_counter() - begin)

    posting = asyncio.create_task(post())
    yield took
    stop.set()
    await posting


async def hold(bridge: Served, count: int) -> None:
    """Wait until the server holds at least that many connections."""
    await until(lambda: len(bridge.server.server_state.connections) >= count)


# ---- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"POST /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx"])
async def test_an_endless_header_ends_with_431_and_delays_nobody(start: bytes) -> None:
    async with served() as bridge, normal_sender(bridge) as took:
        wire = await bridge.connect()
        line = b"x: " + b"y" * 1000 + b"\r\n" if start.endswith(b"\r\n") else b"y" * 1000
        await wire.send(start)
        sent = 0
        while not bridge.refused:
            await wire.send(line)
            sent += len(line)
            await asyncio.sleep(0)
            assert sent < 10_000_000, "nobody stopped it"
        status, headers, content = await wire.answer()
        assert (431, {"error": "the header is too large"}) == (status, content)
        assert "close" == headers["connection"]
    assert [431] == bridge.refused
    assert max(took) < 2


async def test_a_large_header_in_one_piece_is_431_and_one_of_32_kib_is_not() -> None:
    async with served() as bridge:
        for size, status in ((31 * 1024, 202), (33 * 1024, 431)):
            wire = await bridge.connect()
            await wire.send(request(b"{}", "x: " + "y" * size))
            assert status == (await wire.answer())[0]


async def test_a_header_of_many_short_lines_is_weighed_as_a_whole() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"{}", *(f"x{number}: y" for number in range(5000))))
        assert 431 == (await wire.answer())[0]


@pytest.mark.parametrize("start", [b"", b"P", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nhost: a\r\nx: "])
async def test_a_header_that_does_not_end_in_time_ends_the_connection(start: bytes) -> None:
    async with served(limits=HURRY) as bridge:
        wire = await bridge.connect()
        await wire.send(start)
        if start:
            assert (408, {"error": "the header took too long"}) == (await wire.answer())[::2]
        assert b"" == await wire.ended()
        await until(lambda: not bridge.server.server_state.connections)


async def test_a_byte_now_and_then_does_not_prolong_a_header() -> None:
    async with served(limits=HURRY) as bridge:
        wire = await bridge.connect()

        async def dribble() -> None:
            for byte in b"POST / HTTP/1.1\r\n" + b"x" * 10_000:
                await wire.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        assert 408 == (await wire.answer())[0]
        dribbling.cancel()


# ---- the body -------------------------------------------------------------------------------------------------------


async def test_500_half_sent_bodies_do_not_delay_a_normal_sender() -> None:
    async with served() as bridge:
        half = request(b'{"a":"' + b"x" * 60_000, length=1_000_000)
        wires = await asyncio.gather(*(bridge.connect() for _ in range(500)))
        await asyncio.gather(*(wire.send(half) for wire in wires))
        await hold(bridge, 500)
        async with normal_sender(bridge) as took:
            pass
        assert sorted(took)[len(took) // 2] < 0.5
        assert 500 <= len(bridge.server.server_state.connections)


@pytest.mark.parametrize("sent", [b"", b"{", b'{"a":"' + b"x" * 100_000])
async def test_a_half_sent_body_ends_with_408_and_its_bytes_are_let_go(sent: bytes) -> None:
    async with served(limits=HURRY) as bridge:
        wire = await bridge.connect()
        await wire.send(request(sent, length=1_000_000))
        status, headers, content = await wire.answer()
        assert (408, {"error": "the body took too long"}) == (status, content)
        assert "close" == headers["connection"]
        assert b"" == await wire.ended()
        await until(lambda: not bridge.server.server_state.tasks)
        assert (0, 0) == (bridge.house.hands.verified.held, bridge.house.hands.unverified.held)
        assert [] == bridge.house.store.taken


async def test_a_declared_length_of_100_gb_is_refused_at_once_and_cut_off() -> None:
    async with served() as bridge, normal_sender(bridge) as took:
        wire = await bridge.connect()
        await wire.send(request(b"{" * 10_000, length=100 * 10**9))
        status, headers, content = await wire.answer()
        assert (413, {"error": "the body is too large"}) == (status, content)
        assert "close" == headers["connection"]
        pouring = asyncio.create_task(pour(wire))
        await wire.ended()
        pouring.cancel()
    assert max(took) < 2


async def pour(wire: Wire, first: bytes = b"") -> None:
    """Send as fast as the other side reads."""
    try:
        await wire.send(first)
        while True:
            await wire.send(b"x" * 65_536)
    except (ConnectionResetError, BrokenPipeError):
        pass


async def test_an_endless_body_without_a_length_is_413_and_cut_off() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        head = request().partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
        await wire.send(head)

        async def chunks() -> None:
            try:
                while True:
                    await wire.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            except (ConnectionResetError, BrokenPipeError):
                pass

        pouring = asyncio.create_task(chunks())
        assert 413 == (await wire.answer())[0]
        await wire.ended()
        await pouring


async def test_a_sender_that_writes_its_2_mb_to_the_end_still_reads_the_413() -> None:
    """Closing at once would reset the connection under it, and the answer might be lost."""
    async with served() as bridge:
        wire = await bridge.connect()
        data = request(b" " * 2_000_000)
        await wire.send(data[:50_000])
        await until(lambda: bridge.house.count("bridge_requests_refused_total", status="413"))
        for begin in range(50_000, len(data), 50_000):
            await wire.send(data[begin : begin + 50_000])
            await asyncio.sleep(0.001)
        assert 413 == (await wire.answer())[0]
        assert b"" == await wire.ended()


CHUNKED = request().partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("tail", "status"),
    [
        (b"0\r\n" + b"x: " + b"y" * 200_000, 413),
        (b"0\r\n" + b"x: y\r\n" * 200_000, 431),
        (b"0\r\n" + b"a:\r\n" * 129, 431),
        (b"2\r\n{}\r\n0\r\n" + b"a: " + b"b" * 33_000 + b"\r\n", 431),
        (b"1;" + b"e" * 200_000, 413),
        (b"1\r\n \r\n" * 30_000, 413),
    ],
    ids=["long", "many", "fields", "large", "extension", "pieces"],
)
async def test_trailers_and_chunk_marks_without_end_are_cut_off(tail: bytes, status: int) -> None:
    """8 MB of trailers took 310 MB and a pause of 3 s; six such connections stopped the door."""
    limits = Limits(linger_time=timedelta(seconds=0.3))
    async with served(limits=limits) as bridge:
        wire = await bridge.connect()
        pouring = asyncio.create_task(pour(wire, CHUNKED + tail))
        assert (status, "close") == ((got := await wire.answer())[0], got[1]["connection"])
        await wire.ended()
        pouring.cancel()
        assert [] == bridge.house.store.taken
        assert {"header" if status == 431 else "chunk_marks": 1} == bridge.house.limits.of_last_hour()


async def test_trailers_have_the_time_of_a_header() -> None:
    async with served(limits=Limits(header_time=timedelta(seconds=0.3))) as bridge:
        wire = await bridge.connect()
        await wire.send(CHUNKED + b"2\r\n{}\r\n0\r\na: b\r\nc: d\r\n")
        assert (408, {"error": "the header took too long"}) == (await wire.answer())[::2]
        assert {"header": 1} == bridge.house.limits.of_last_hour()


async def test_a_body_in_pieces_of_the_usual_size_is_taken_whole() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        body = b'{"a": "' + b"x" * 900_000 + b'"}'
        pieces = [body[begin : begin + 1_000] for begin in range(0, len(body), 1_000)]
        await wire.send(CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
        assert 202 == (await wire.answer())[0]
        assert [body] == bridge.house.store.bodies()


@pytest.mark.parametrize(("fields", "status"), [(125, 202), (126, 431)])
async def test_a_header_has_128_fields(fields: int, status: int) -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"{}", *(f"x{number}: y" for number in range(fields))))
        assert status == (await wire.answer())[0]


async def test_trailers_do_not_become_headers() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        head = request().partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
        await wire.send(head + b"2\r\n{}\r\n0\r\nwebhook-id: forged\r\n\r\n")
        assert answer(1) == (await wire.answer())[2]
        assert bridge.house.store.taken[0].message_id is None


async def test_the_rest_of_a_refused_body_is_swallowed_within_bounds() -> None:
    """A 404 leaves the connection open for the next request, but nobody may pour into it for ever."""
    async with served(limits=HURRY) as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"{", length=10**6, path="/webhooks/other.x.y"))
        assert 404 == (await wire.answer())[0]
        assert b"" == await wire.ended()


# ---- connections ----------------------------------------------------------------------------------------------------


async def test_an_idle_connection_ends_without_a_word() -> None:
    async with served(limits=HURRY) as bridge:
        wire = await bridge.connect()
        for _ in range(2):
            await wire.send(request())
            assert 202 == (await wire.answer())[0]
        assert b"" == await wire.ended()
        assert [] == bridge.refused


async def test_who_does_not_read_its_answers_is_cut_off() -> None:
    limits = Limits(answer_time=timedelta(seconds=0.3), linger_time=timedelta(seconds=0.3))
    async with served(limits=limits) as bridge:
        wire = await bridge.connect()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the transport of a socket has it
        await hold(bridge, 1)
        connection = bridge.connection()
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
        for _ in range(200):
            await wire.send(ask * 50)
            await asyncio.sleep(0.01)
            if connection.flow.write_paused:
                break
        assert connection.flow.write_paused
        await until(lambda: not bridge.server.server_state.connections)
        assert [] == bridge.refused


async def test_answers_that_nobody_reads_are_noticed_before_they_fill_megabytes() -> None:
    """The system would take them without a word, a few megabytes a connection."""
    async with served() as bridge:
        wire = await bridge.connect()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await hold(bridge, 1)
        connection, state = bridge.connection(), bridge.server.server_state
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
        async with httpx.AsyncClient(base_url=bridge.url) as client:
            size = len((await client.get("/openapi.json")).content)
        asked = state.total_requests
        while not connection.flow.write_paused and (state.total_requests - asked) * size < 2**20:
            await wire.send(ask)
            await asyncio.sleep(0)
        assert connection.flow.write_paused


async def test_the_time_of_a_body_does_not_run_while_it_is_the_server_that_does_not_read() -> None:
    async with served(limits=HURRY) as bridge:
        bridge.house.store.go_on.clear()
        wire = await bridge.connect()
        body = b'{"a": "' + b"x" * 300_000 + b'"}'
        await wire.send(request(b'{"a": 1}') + request(body)[:200_000])
        await until(lambda: bridge.house.store.waiting)
        connection = bridge.connection()
        await until(lambda: connection.flow.read_paused)
        first = connection.deadline
        await until(lambda: connection.deadline > first)
        bridge.house.store.go_on.set()
        assert 202 == (await wire.answer())[0]
        await wire.send(request(body)[200_000:])
        assert 202 == (await wire.answer())[0]
        assert [b'{"a": 1}', body] == bridge.house.store.bodies()


async def test_half_a_request_behind_good_ones_does_not_take_their_answers() -> None:
    async with served(limits=HURRY) as bridge:
        bridge.house.store.go_on.clear()
        wire = await bridge.connect()
        await wire.send(request(b'{"a": 1}') + request(b'{"a": 2}') + request(b'{"a": 3}')[:-1])
        await until(lambda: bridge.refused)
        bridge.house.store.go_on.set()
        assert [202, 202] == [(await wire.answer())[0] for _ in range(2)]
        assert b"" == await wire.ended()
        assert [b'{"a": 1}', b'{"a": 2}'] == bridge.house.store.bodies()


async def test_what_is_no_http_behind_a_good_request_does_not_take_its_answer() -> None:
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        wire = await bridge.connect()
        await wire.send(request(b'{"a": 1}') + b"garbage\r\n\r\n")
        await until(lambda: bridge.refused)
        bridge.house.store.go_on.set()
        status, headers, _ = await wire.answer()
        assert (202, "close") == (status, headers["connection"])
        assert b"" == await wire.ended()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(b"".join(request(b'{"n": %d}' % number) for number in range(50)))
        for number in range(50):
            assert (202, [number + 1]) == ((got := await wire.answer())[0], got[2]["ids"])
        assert [b'{"n": %d}' % number for number in range(50)] == bridge.house.store.bodies()


async def test_a_request_of_many_pieces_is_the_same_request() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        for _ in range(2):
            for byte in request(b'{"a": "b"}'):
                await wire.send(bytes([byte]))
                await asyncio.sleep(0)
            assert 202 == (await wire.answer())[0]
        assert [b'{"a": "b"}'] * 2 == bridge.house.store.bodies()


# ---- what is not HTTP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"hello\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_400_and_the_end(data: bytes) -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(data)
        status, headers, content = await wire.answer()
        assert (400, {"error": "this is not HTTP"}) == (status, content)
        assert "close" == headers["connection"]
        assert b"" == await wire.ended()


@pytest.mark.parametrize(
    "target", ["*", "//", "/webhooks/", "/webhooks//", "/webhooks/a/b", "//webhooks", "http://a/b"]
)
async def test_a_post_to_nowhere_is_404(target: str) -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(request(path=target))
        assert (404, {"error": "not found"}) == (await wire.answer())[::2]
        await wire.send(request())
        assert 202 == (await wire.answer())[0]


OFFER = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_offer_to_upgrade_is_declined_and_the_request_is_read_to_its_end(size: int) -> None:
    """Java's client offers HTTP/2 with its first request; the vendor's own programs are Java."""
    async with served() as bridge:
        wire = await bridge.connect()
        data = request(b'{"a": 1}', *OFFER) + request(b'{"a": 2}') + request(b'{"a": 3}', *OFFER)
        for begin in range(0, len(data), size):
            await wire.send(data[begin : begin + size])
            await asyncio.sleep(0)
        assert [202] * 3 == [(await wire.answer())[0] for _ in range(3)]
        assert [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}'] == bridge.house.store.bodies()


async def test_many_offers_in_one_piece_are_declined_one_after_the_other() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"{}", *OFFER) * 1000)
        assert [202] * 1000 == [(await wire.answer())[0] for _ in range(1000)]


async def test_a_web_socket_is_not_to_be_had() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        keys = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13"
        await wire.send(
            b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            + keys
            + b"\r\n\r\n"
        )
        assert (200, {"live": True}) == (await wire.answer())[::2]


async def test_who_asks_before_sending_is_told_to_go_on_or_why_not() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        head, _, body = request(b"{}", "expect: 100-continue").partition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n")
        assert 100 == (await wire.answer())[0]
        await wire.send(body)
        assert 202 == (await wire.answer())[0]
        refused = request(b"", "expect: 100-continue", length=100 * 10**6).partition(b"\r\n\r\n")[0]
        await wire.send(refused + b"\r\n\r\n")
        status, headers, _ = await wire.answer()
        assert (413, "close") == (status, headers["connection"])


async def test_who_asks_before_sending_to_nobody_is_not_left_in_doubt() -> None:
    async with served(settings()) as bridge:
        wire = await bridge.connect()
        await wire.send(request(b"", "expect: 100-continue", length=10, path="/webhooks/other.x.y"))
        status, headers, _ = await wire.answer()
        assert (404, "close") == (status, headers["connection"])


async def test_who_asks_before_sending_what_is_no_chunk_gets_one_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        asking = (
            request(b"", "expect: 100-continue")
            .partition(b"\r\n\r\n")[0]
            .replace(b"content-length: 0", b"transfer-encoding: chunked")
        )
        await wire.send(asking + b"\r\n\r\nno length\r\n")
        status, headers, _ = await wire.answer()
        assert (400, "close") == (status, headers["connection"])
        await wire.ended()
    assert [] == [record.message for record in caplog.records if record.exc_info], "nothing was written after the end"

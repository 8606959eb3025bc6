"""One address for several replicas: connections go round among those that are ready."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from bridge.sandbox.balancer import Balancer

PATIENCE_S = 20


class Replica(ThreadingHTTPServer):
    """Answers with its name; ready or not, as told."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.ready = True

    @property
    def backend(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_port)


class _Handler(BaseHTTPRequestHandler):
    server: Replica
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200 if self.server.ready or self.path != "/health/ready" else 503, self.server.name.encode())

    def do_POST(self) -> None:
        self._answer(200, self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(name: str) -> Iterator[Replica]:
    with Replica(name) as replica:
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        yield replica
        replica.shutdown()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    with ExitStack() as held:
        yield [held.enter_context(serving(name)) for name in ("a", "b", "c")]


@pytest.fixture
def balancer(replicas: list[Replica]) -> Iterator[Balancer]:
    with Balancer([replica.backend for replica in replicas]) as balancer:
        until(lambda: len(balancer.ready) == 3)
        yield balancer


def ask(balancer: Balancer, path: str = "/") -> str:
    return httpx.get(f"http://127.0.0.1:{balancer.port}{path}", trust_env=False).text


def test_connections_go_round(balancer: Balancer) -> None:
    names = [ask(balancer) for _ in range(6)]
    assert {"a", "b", "c"} == set(names[:3])
    assert names[:3] == names[3:]


def test_who_is_not_ready_is_left_out_until_it_is(balancer: Balancer, replicas: list[Replica]) -> None:
    replicas[1].ready = False
    until(lambda: len(balancer.ready) == 2)
    assert {"a", "c"} == {ask(balancer) for _ in range(6)}
    replicas[1].ready = True
    until(lambda: len(balancer.ready) == 3)
    assert {"a", "b", "c"} == {ask(balancer) for _ in range(6)}


def test_a_connection_that_one_does_not_take_goes_to_the_next(balancer: Balancer, replicas: list[Replica]) -> None:
    replicas[0].shutdown()
    replicas[0].server_close()
    assert {"b", "c"} == {ask(balancer) for _ in range(4)}


def test_bytes_pass_as_they_are_over_one_connection(balancer: Balancer) -> None:
    with httpx.Client(trust_env=False) as client:
        for size in (0, 1, 3_000_000):
            body = bytes(range(256)) * (size // 256 + 1)
            assert body == client.post(f"http://127.0.0.1:{balancer.port}/", content=body).content


def test_with_nobody_there_a_connection_is_closed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Balancer([taken.getsockname()]) as balancer, pytest.raises(httpx.HTTPError):
            ask(balancer)


def test_a_taken_port_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"), Balancer([], taken.getsockname()[1]):
            pass

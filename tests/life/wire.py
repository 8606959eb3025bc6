"""A relay between daemon and look-alike that writes down what the daemon says, byte for byte."""

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Wire:
    """The relay's address, and what went through it."""

    port: int
    said: bytearray = field(default_factory=bytearray)

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def tokens(self) -> set[str]:
        """Return every token that a call carried."""
        return {token.decode() for token in re.findall(rb"(?i)authorization: bearer (\S+)", bytes(self.said))}


@contextmanager
def relayed(port: int) -> Iterator[Wire]:
    """Run a relay to a port of this machine."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as other:
                back = threading.Thread(target=_pump, args=(other, self.request, None), daemon=True)
                back.start()
                _pump(self.request, other, wire.said)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Relay) as server:
        wire = Wire(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield wire
        finally:
            server.shutdown()
            thread.join()


def _pump(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
    """Pass on what comes until either side ends."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            if record is not None:
                record += piece
            target.sendall(piece)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)

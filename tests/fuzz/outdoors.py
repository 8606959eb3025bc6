"""The real process over real sockets: schemathesis on its own document, and bytes that are hardly HTTP."""

import contextlib
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.inputs import TOKEN, bodies, pieces
from tests.fuzz.tally import Tally
from tests.life.stage import Bridge, until

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PATIENCE_S: Final = 20.0

Case = Any


def cases(bridge: Bridge) -> st.SearchStrategy[Case]:
    """Return schemathesis's questions to all addresses of the document that the bridge serves, right ones and wrong."""
    document = schemathesis.openapi.from_url(f"{bridge.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    right = [operation.as_strategy() for operation in operations]
    wrong = [
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        for operation in operations
        if list(operation.iter_parameters()) or list(operation.body)
    ]
    return st.one_of(*right, *wrong)


def question(case: Case, caller: str | None, session: requests.Session, tally: Tally) -> None:
    """Ask one of them as a caller, whose name is put before the topic; check the answer against the document."""
    if caller is not None and "topic" in (case.path_parameters or {}):
        case.path_parameters["topic"] = f"{caller}.{case.path_parameters['topic']}"
    proof = {"authorization": f"Bearer {TOKEN}"} if caller == "by-bearer" else None
    response = case.call(session=session, timeout=PATIENCE_S, headers=proof)
    tally.add(f"schemathesis {case.method} {case.path}", response.status_code)
    case.validate_response(response, checks=CHECKS)


# ---- hardly HTTP ----------------------------------------------------------------------------------------------------

_LINES: Final = [
    b"POST /webhooks/open.vehicle.update HTTP/1.1", b"POST /webhooks HTTP/1.1", b"GET /health HTTP/1.1",
    b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"POST http://a/webhooks HTTP/1.1", b"GET /%zz HTTP/1.1",
    b"PRI * HTTP/2.0", b"GET /",
]  # fmt: skip
_FIELDS: Final = [
    b"host: bridge", b"content-type: application/json", b"content-length: 2", b"content-length: 2\r\ncontent-length: 3",
    b"content-length: -1", b"content-length: 99999999999999999999", b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked", b"connection: close", b"connection: upgrade\r\nupgrade: h2c",
    b"expect: 100-continue", b"x:", b": x", b"x y: z", b" folded", b"x: \xff\x00", b"x-topic: open.meter.update",
    b"te: trailers",
]  # fmt: skip
_REST: Final = [b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"ffffffff\r\n", b"0\r\nx: y\r\n\r\n", b"-1\r\n", b"", b"\r\n"]


@st.composite
def scribbles(draw: st.DrawFn) -> bytes:
    """Return the bytes of something that resembles a request."""
    if draw(st.booleans()):
        body = draw(bodies)
        lines = [b"POST /webhooks/open.vehicle.update HTTP/1.1", b"host: bridge", b"content-length: %d" % len(body)]
        lines += draw(st.lists(st.sampled_from(_FIELDS), max_size=1))
    else:
        body = draw(st.sampled_from(_REST) | bodies)
        lines = [draw(st.sampled_from(_LINES)), *draw(st.lists(st.sampled_from(_FIELDS), max_size=5))]
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    text = end.join(lines) + end * 2 + body
    if draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(pieces) + text[at + draw(st.integers(0, 3)) :]
    return text


def scribble(bridge: Bridge, text: bytes, tally: Tally) -> None:
    """Send bytes and no more; read all answers. None is a 5xx, and the connection ends."""
    place = urlsplit(bridge.url)
    answers = b""
    with (
        socket.create_connection((str(place.hostname), place.port), timeout=PATIENCE_S) as sock,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        sock.sendall(text)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65_536):
            answers += piece
    first = answers[9:12].decode() if answers.startswith(b"HTTP/1.1 ") else "closed without an answer"
    assert first[0] in "1234c", answers
    assert b"HTTP/1.1 5" not in answers, answers
    tally.add("hardly HTTP", first)


def judge(bridge: Bridge) -> None:
    """Check that the process is sound: everything worked off, the identities hold, no fault, nothing said of one."""
    health = bridge.settled(owed=True)
    assert "fault" not in health["dead_letters"], health
    for word in ("Traceback", "faulted", "Exception"):
        assert word not in bridge.text(), word
    until(bridge.ready, "it accepts")

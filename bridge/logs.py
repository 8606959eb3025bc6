"""How the bridge speaks: one line per rare thing on stderr, as JSON or for a terminal.

Rules:
- Event names are past tense and snake_case (`circuit_opened`); frequent things are counted, not logged.
- Libraries (uvicorn, httpx, aiohttp, warnings) speak through the same handler.
- The finished line is searched for secrets, whatever part of it they came from: the known values first, then what
  looks like a credential. So a secret in an exception text or in a library's message is caught too.
- Tracebacks carry no local variables: those hold messages and secrets.
- The daemon's lines are written by a thread of their own: a reader that is stuck, a closed stderr, a full disk cost
  lines, which are counted and told once that is over. They never hold up the work.
- `debug` is for what happens per message, call or batch. Rooms ask `debugging()` first: a line that is not written
  costs nothing.
"""

import atexit
import base64
import json as jsonlib
import logging
import os
import queue
import re
import select
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Final, cast
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK: Final = "[redacted]"

_TOO_SHORT: Final = 4
"""Known values below this many characters are not searched for: they would mask half of every line."""

_DEPTH: Final = 3
"""How often a text may have been escaped: a body in an exception in a line."""

_PATTERNS: Final = (
    # MOOST takes id and secret in the query string; any library that prints an address prints them.
    re.compile(
        r"(?i)((?:client_?secret|access_?token|admin_?token|password|passwd)\\?[\"']?\s*[=:]\s*\\?[\"']?)[^\s\"'&,;\\}\])]+"
    ),
    re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}"),
    re.compile(r"(?i)(authorization\W{1,6}basic\s+)[\w+/=-]+"),
    re.compile(r"(whsec_)[A-Za-z0-9+/=_-]+"),
    re.compile(r"()eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]+)?"),  # a JSON web token
    re.compile(r"((?:postgres(?:ql)?|kafka|https?)://[^\s:/@\"']+:)[^\s@\"']+(?=@)"),  # user:password@ in an address
)

_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)

_QUIET: Final = ("httpx", "httpcore", "aiohttp", "asyncio", "uvicorn")
"""Libraries whose lines below a warning are one per request, or repeat what the bridge says itself."""


class Redaction:
    """A structlog processor behind the renderer: masks secrets in the finished line."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare to find `secrets` as such, escaped as in JSON or an address, and in base64."""
        forms = {form for secret in secrets if len(secret) >= _TOO_SHORT for form in _forms(secret)}
        ordered = sorted(forms, key=len, reverse=True)  # the longer first, or its tail would stay
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, _logger: WrappedLogger, _method: str, line: str | EventDict) -> str:
        """Return the rendered line without its secrets."""
        return self.text(cast("str", line))

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        if self._known is not None:
            text = _masked(text, [match.span() for match in self._known.finditer(text)])
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{MASK}", text)
        return text


def _masked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text with spans masked; an escape of JSON that begins or ends within one goes as a whole."""
    escapes = [match.span() for match in _ESCAPE.finditer(text)] if spans else []
    pieces, done = [], 0
    for begin, end in spans:
        touched = [(begin, end), *((first, last) for first, last in escapes if first < end and last > begin)]
        pieces += [text[done : min(touched)[0]], MASK]
        done = max(done, *(last for _, last in touched))
    return "".join([*pieces, text[done:]])


def _forms(secret: str) -> set[str]:
    """Return the ways in which a secret may be written in a line: within JSON within JSON, in an address, as base64."""
    raw = secret.encode(errors="surrogatepass")
    encoded = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()}
    written = {secret}
    for _ in range(_DEPTH):
        written |= {escaped for text in written for escaped in _escaped(text)}
    return {form for form in {quote(raw, safe=""), quote_plus(raw), *encoded, *written} if len(form) >= _TOO_SHORT}


def _escaped(text: str) -> tuple[str, ...]:
    return jsonlib.dumps(text)[1:-1], jsonlib.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]


def configure(
    level: str,
    json: bool,  # noqa: FBT001 - the one choice there is
    secrets: Iterable[str] = (),
    *,
    background: bool = False,
) -> None:
    """Send every line of this process to stderr, from `level` (debug, info, warning, error) on; may be called again.

    With `background` a thread writes the lines, which are lost where they cannot be written.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # configure may run again: a reload brings new secrets
    )
    handler = _Background(_writer()) if background else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(json=json),
                cast("Processor", Redaction(secrets)),
            ],
        )
    )
    _install(handler, level.upper())
    if background:
        sys.unraisablehook = _unraisable
        threading.excepthook = _thread_ended


def debugging() -> bool:
    """Return whether debug lines are written."""
    return logging.root.level <= logging.DEBUG


def lost() -> int:
    """Return how many lines could not be written since the start."""
    return _state.writer.lost if _state.writer is not None else 0


def flush(seconds: float) -> None:
    """Wait until the lines so far are written, but not longer than that."""
    if _state.writer is not None:
        _state.writer.flush(seconds)


# ---- writing beside the work ----------------------------------------------------------------------------------------

MOST_WAITING: Final = 2**20
"""Characters that wait to be written; some 2,000 lines."""

LAST_S: Final = 1.0
"""How long the end of the process waits for its last lines."""

_STDERR: Final = 2
_PATIENCE_S: Final = 1.0  # between two looks whether a stderr that takes nothing takes something again


class LineWriter:
    """A thread that writes lines to a file descriptor, and the bounded queue before it."""

    def __init__(self, target: int) -> None:
        """Start the thread."""
        self.lost = 0  # lines
        self._target = target
        self._told = 0  # of the lost ones
        self._torn = False  # a line was cut off in the middle
        self._waiting = 0  # characters
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def put(self, line: str) -> None:
        """Have a line written, or lose it; never waits."""
        with self._lock:
            if self._waiting + len(line) > MOST_WAITING:
                self.lost += 1
                return
            self._waiting += len(line)
        self._queue.put(line)

    def flush(self, seconds: float) -> None:
        """Wait until what was put is written, but not longer than that."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(seconds)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            done = self._write(item)
            with self._lock:
                self._waiting -= len(item)
                self.lost += not done
            if done and self.lost > self._told:
                self._told, count = self.lost, self.lost - self._told
                logger("logs").warning("log_lines_lost", count=count)

    def _write(self, line: str) -> bool:
        """Write a whole line; return whether that could be done. A pipe that is full is waited for."""
        left = (("\n" if self._torn else "") + line + "\n").encode(errors="backslashreplace")
        whole = len(left)
        while left:
            try:
                left = left[os.write(self._target, left) :]
            except BlockingIOError:  # whoever shares the pipe has told it not to wait
                select.select((), (self._target,), (), _PATIENCE_S)
            except OSError:
                self._torn = self._torn or len(left) < whole
                return False
        self._torn = False
        return True


class _Background(logging.Handler):
    """Hands finished lines to the thread that writes them."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._lines = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put(self.format(record))
        except Exception:  # noqa: BLE001 - a line that cannot be made must not end what it tells of
            self._lines.lost += 1


class _State:
    """What the process has one of."""

    writer: LineWriter | None = None


_state = _State()


def _writer() -> LineWriter:
    """Return the one writer of this process."""
    if _state.writer is None:
        _state.writer = LineWriter(_STDERR)
        atexit.register(flush, LAST_S)
    return _state.writer


def _unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """Say what Python would print to stderr itself, and wait for it there."""
    logger("python").error("error_ignored", error=type(raised.exc_value).__name__)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else ""
    logger("python").error("thread_failed", thread=name, error=args.exc_type.__name__)


def _renderers(*, json: bool) -> list[Processor]:
    """Return what turns an event into a line; tracebacks as plain text, without local variables."""
    if json:
        return [
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    colors = sys.stderr.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put first what a reader looks for first."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event", "logger") if name in event}
    return {**first, **event}


def _install(handler: logging.Handler, level: str) -> None:
    """Make `handler` the only one, for libraries too."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; cheap and lazy, so a module may keep one."""
    return structlog.stdlib.get_logger(name)

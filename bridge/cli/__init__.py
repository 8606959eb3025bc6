"""The door for people: commands parse, call, print.

Rules:
- Exit codes: 0 done or drained; 1 crashed; 2 bad configuration or usage; 3 ran and found what it looked for.
- What a program reads goes to stdout, all else to stderr; an error is one sentence, a configuration one line a problem.
- `--json` prints one JSON array on stdout and nothing else there.
- A command imports what it needs when it runs: `bridge --help` answers at once.

Rooms: `daemon` what runs on, `desk` and `letters` what works on the store, `show` and `values` what explains, `again`
what maps the past again, `forget` what erases, `common` what they share.
"""

import sys
from typing import TYPE_CHECKING, NoReturn, cast

from bridge.cli import again, daemon, desk, forget, letters, show  # noqa: F401 - each adds its commands to the app
from bridge.cli.common import CRASHED, USAGE, app
from bridge.errors import BridgeError, ConfigErrors, UsageError

if TYPE_CHECKING:
    from io import TextIOWrapper

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a message may hold half a character; what prints it must not fail
        cast("TextIOWrapper", stream).reconfigure(encoding="utf-8", errors="backslashreplace")

    try:
        app(prog_name="bridge")
    except (ConfigErrors, UsageError) as error:
        _end(error, USAGE)
    except BridgeError as error:
        _end(error, CRASHED)
    sys.exit(0)


def _end(error: BridgeError, code: int) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.exit(code)

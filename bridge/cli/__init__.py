"""The door for people: commands parse, call, print.

Rules:
- Exit codes: 0 done or drained; 1 crashed; 2 bad configuration or usage; 3 ran and found what it looked for.
- What a program reads goes to stdout, all else to stderr; an error is one sentence, a configuration one line a problem.
- `--json` prints one JSON array on stdout and nothing else there.
- A command imports what it needs when it runs: `moost-bridge --help` answers at once.

Rooms: `daemon` what runs on, `desk` and `letters` what works on the store, `show` and `values` what explains, `again`
what maps the past again, `forget` what erases, `streams` where it is printed, `common` what they share.
"""

import sys
from typing import Final, NoReturn

from bridge.cli import again, daemon, desk, forget, letters, show, streams  # noqa: F401 - each adds its commands
from bridge.cli.common import CRASHED, USAGE, app, say
from bridge.errors import BridgeError, ConfigErrors, UsageError

__all__ = ["app", "main"]

PROGRAM: Final = "moost-bridge"  # on most Linux machines `bridge` is iproute2's; ours of that name stays for scripts


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    streams.prepare()
    try:
        code = _run()
        sys.stdout.flush()
    except streams.OutputError as error:
        code = _said(error, CRASHED)
    finally:
        streams.restore()
    sys.exit(code)


def _run() -> int:
    """Run the command line and return its exit code."""
    try:
        app(prog_name=PROGRAM)
    except SystemExit as end:
        return int(end.code or 0)
    except streams.OutputError:
        raise
    except (ConfigErrors, UsageError) as error:
        return _said(error, USAGE)
    except BridgeError as error:
        return _said(error, CRASHED)
    return 0


def _said(error: BridgeError, code: int) -> int:
    if text := str(error):
        say(text)
    return code

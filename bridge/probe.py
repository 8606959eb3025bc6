"""Ask whether the daemon of this container lives: `python -m bridge.probe` ends with 0 or 1.

Rules:
- The address is that of the daemon: the variables `BRIDGE_SERVER__HOST` and `BRIDGE_SERVER__PORT`, else `[server]` in
  the file that process 1 was told by `--config`, else in the one that `BRIDGE_CONFIG` names, else the defaults.
- It runs every few seconds beside the daemon, so it imports nothing but the standard library.

Source: Docker documentation, "Dockerfile reference", HEALTHCHECK (0 healthy, 1 unhealthy).
"""

import http.client
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PATH: Final = "/health/live"
TIMEOUT_S: Final = 2.0
_PORT: Final = 8080  # the default of server.port
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, and where to ask then


def address(environ: Mapping[str, str], command: Sequence[str] = ()) -> tuple[str, int]:
    """Return host and port to ask; `command` is how the daemon was started. Raises OSError, ValueError, TypeError."""
    server = _server(_told(command) or environ.get("BRIDGE_CONFIG", ""))
    host = str(environ.get("BRIDGE_SERVER__HOST") or server.get("host") or "127.0.0.1")
    port = environ.get("BRIDGE_SERVER__PORT") or server.get("port") or _PORT
    return _EVERYWHERE.get(host, host), int(str(port))


def _server(file: str) -> Mapping[str, object]:
    """Return the section of a file; nothing where no file is named or there is none."""
    if not file or not Path(file).exists():
        return {}
    found = tomllib.loads(Path(file).read_bytes().decode("utf-8-sig")).get("server", {})
    return found if isinstance(found, dict) else {}


def _told(command: Sequence[str]) -> str:
    """Return what a command line says of `--config`."""
    for place, word in enumerate(command):
        if word == "--config" and place + 1 < len(command):
            return command[place + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return ""


def _process_1() -> list[str]:
    """Return the command line of process 1, which in a container is the daemon."""
    try:
        return Path("/proc/1/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def alive(host: str, port: int) -> bool:
    """Return whether the daemon says that it lives."""
    asked = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        asked.request("GET", PATH)
        return asked.getresponse().status == http.HTTPStatus.OK
    finally:
        asked.close()


def main() -> None:
    """Ask, and end with 0 or 1; Docker keeps the sentence."""
    try:
        host, port = address(os.environ, _process_1())
        good = alive(host, port)
        said = f"http://{host}:{port}{PATH} " + ("is answered" if good else "is not answered with 200")
    except (OSError, ValueError, TypeError, http.client.HTTPException) as error:
        good, said = False, f"not healthy: {type(error).__name__}: {error}"
    sys.stdout.write(said + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

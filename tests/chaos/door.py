"""Faults of those who knock: they dribble, hang up in the middle, forge."""

import contextlib
import random
import socket
import time
from concurrent.futures import TimeoutError as NotInTime
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.chaos.fault import Fault, Needs
from tests.chaos.scene import Scene, seen
from tests.chaos.town import Letter
from tests.life.stage import ask, signed

OTHER_SECRET: Final = "whsec_" + "bm90LXRoZS1zZWNyZXQtb2YtdGhpcy10b3du"
DRIBBLERS: Final = 40
DRIBBLE_S: Final = 12.0  # the door gives a header five seconds
SLOWLY: Final = b"POST /webhooks/ HTTP/1.1\r\nx-slow: "


class SlowClients(Fault):
    """Many connections that say one byte at a time: they are shown out, and keep nobody else waiting."""

    name = "slow clients"
    needs = frozenset({Needs.DOOR})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Dribble until the door has had enough of it; meanwhile letters go on being taken."""
        with contextlib.ExitStack() as held:
            socks = []
            for _ in range(DRIBBLERS):
                with contextlib.suppress(OSError):
                    sock = held.enter_context(_connected(dice.choice(scene.replicas).bridge.url))
                    sock.send(SLOWLY)
                    socks.append(sock)
            before, ended = scene.crowd.statuses[202], 0
            end = time.monotonic() + DRIBBLE_S
            while socks and time.monotonic() < end:
                left = [sock for sock in socks if _dribble(sock)]
                ended += len(socks) - len(left)
                socks = left
                time.sleep(0.25)
            return ended if scene.crowd.statuses[202] > before else 0


class CutOff(Fault):
    """A sender hangs up in the middle of a body; when it comes whole under the same id, it is new."""

    name = "cut off within a body"
    needs = frozenset({Needs.DOOR})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Send half of a letter, then all of it."""
        letter = scene.crowd.town.household()
        with contextlib.suppress(OSError), _connected(dice.choice(scene.replicas).bridge.url) as sock:
            sock.sendall(_head(letter) + letter.body[: len(letter.body) // 2])
        try:
            return scene.crowd.deliver(letter).result(10).accepted == len(letter.fates)
        except NotInTime:
            return False


class Forged(Fault):
    """Somebody signs with another key: 401, and nothing is stored."""

    name = "forged signature"
    needs = frozenset({Needs.DOOR})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Forge a letter, whose real one is new."""
        letter = scene.crowd.town.household()
        url = f"{dice.choice(scene.replicas).bridge.url}/webhooks/{letter.topic}"
        refused = False

        def forge() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answer = ask("POST", url, content=letter.body, headers=signed(letter.body, letter.id, OTHER_SECRET))
                if answer.status_code == 202:
                    scene.troubles.append("a forged letter was taken")
                return answer.status_code == 401
            return False

        refused = seen(forge, 3)
        try:
            return refused and scene.crowd.deliver(letter).result(10).accepted == len(letter.fates)
        except NotInTime:
            return False


def _connected(url: str) -> socket.socket:
    place = urlsplit(url)
    sock = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=2)
    sock.settimeout(0)
    return sock


def _dribble(sock: socket.socket) -> bool:
    """Say one byte more; return whether the other side still listens."""
    try:
        sock.send(b"x")
        return sock.recv(1000) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _head(letter: Letter) -> bytes:
    fields = signed(letter.body, letter.id) | {"host": "bridge", "content-length": str(len(letter.body))}
    lines = [f"POST /webhooks/{letter.topic} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


FAULTS = (SlowClients, CutOff, Forged)

"""Faults of a store that replicas share: of its server, of those who work in it, and of being several.

Rules:
- The server goes as an operator, a crash or the kernel ends it, and comes back; no replica ends because of it.
- A COMMIT whose end is not heard is made on purpose: the server writes it, then waits for a standby that does not
  exist, and its process is ended while it waits.
- A replica that sleeps longer than its lease wakes among others that have taken over; what it still says is refused.
- Whoever asks the server itself needs it for himself.
"""

import random
import signal
import time
from abc import abstractmethod
from typing import Final, cast

from bridge.store.postgres.replicas import BEAT
from tests.chaos.fault import Fault, Needs
from tests.chaos.keeping import Shared
from tests.chaos.scene import Scene, seen

TURNED_AWAY_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 15.0  # of the bridge's sessions
NOBODY: Final = "nobody"  # a standby that there is not
OURS: Final = "application_name = 'moost-bridge'"

# ---- the server -----------------------------------------------------------------------------------------------------


class ServerFault(Fault):
    """The server goes, and comes back."""

    needs = frozenset({Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """End it until senders are turned away, and a little longer."""
        keeping, statuses = _keeping(scene), scene.crowd.statuses
        before = statuses[503]
        with keeping.away():
            self._end(keeping)
            fired = seen(lambda: statuses[503] > before, TURNED_AWAY_S)
            time.sleep(dice.uniform(0, 3))
        return fired

    @abstractmethod
    def _end(self, keeping: Shared) -> None:
        """End the server."""


class ServerCrashes(ServerFault):
    """It stops at once, and has to recover from its log."""

    name = "PostgreSQL: stop -m immediate"

    def _end(self, keeping: Shared) -> None:
        keeping.server.stop("immediate")


class ServerRestarted(ServerFault):
    """It is stopped as an operator does, under the connections of all replicas."""

    name = "PostgreSQL: stop -m fast"

    def _end(self, keeping: Shared) -> None:
        keeping.server.stop("fast")


class ServerKilled(ServerFault):
    """kill -9 of its first process; the others notice by themselves."""

    name = "PostgreSQL: kill -9"

    def _end(self, keeping: Shared) -> None:
        keeping.server.kill()


# ---- who works in it ------------------------------------------------------------------------------------------------


class BackendsEnded(Fault):
    """The server ends the processes that work for the bridge: their connections are lost, others are had at once."""

    name = "PostgreSQL: connections ended"
    needs = frozenset({Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """End each of them with some chance, a few times."""
        keeping, ended = _keeping(scene), 0
        with keeping.trouble():
            for _ in range(dice.randint(1, 3)):
                ended += _ended(keeping, f"random() < {dice.uniform(0.3, 1)}")
                time.sleep(dice.uniform(0, 0.5))
        return ended


class CommitUnheard(Fault):
    """What has been committed is not told: the connection is lost at the end of the transaction."""

    name = "PostgreSQL: COMMIT unheard"
    needs = frozenset({Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Let every COMMIT wait for a standby that there is not, and end the processes that wait."""
        keeping, ended = _keeping(scene), 0
        with keeping.trouble():
            keeping.server.set("synchronous_standby_names", NOBODY)
            try:
                end = time.monotonic() + dice.uniform(1.5, 3)
                while time.monotonic() < end:
                    time.sleep(dice.uniform(0.1, 0.5))
                    ended += _ended(keeping, "wait_event = 'SyncRep'")
            finally:
                keeping.server.reset("synchronous_standby_names")
        return ended


class RowsHeld(Fault):
    """Somebody else is idle in a transaction and holds what everybody needs: nothing is acknowledged meanwhile."""

    name = "PostgreSQL: idle in transaction with locks"
    needs = frozenset({Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Hold; the first time, and every third, longer than the bridge waits."""
        keeping, statuses = _keeping(scene), scene.crowd.statuses
        with keeping.trouble(), keeping.server.holding("LOCK TABLE inbox, lane IN SHARE ROW EXCLUSIVE MODE"):
            time.sleep(0.3)  # for the answers to what was committed before
            before = statuses[202]
            time.sleep(LOCK_TIMEOUT_S + 1.5 if self.injected % 3 == 1 else dice.uniform(0.5, 3))
            return statuses[202] == before


def _ended(keeping: Shared, which: str) -> int:
    """End the server's processes that work for the bridge, of those some; return how many."""
    found = keeping.server.execute(
        f"SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OURS} AND {which}"  # noqa: S608 - a test's own
    )
    return int(found[0][0])


# ---- being several --------------------------------------------------------------------------------------------------


class AsleepTooLong(Fault):
    """A replica sleeps longer than its lease: the others take over, and it begins anew as another."""

    name = "asleep beyond its lease (SIGSTOP)"
    needs = frozenset({Needs.BRIDGE, Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Stop one while requests are in its hands, until nobody waits for it any more."""
        replica, keeping = dice.choice(scene.replicas), _keeping(scene)
        server = keeping.server

        def living() -> int:
            return int(server.execute("SELECT count(*) FROM replica WHERE NOT gone")[0][0])

        def newest() -> int:
            return int(server.execute("SELECT max(id) FROM replica")[0][0])

        before = newest()
        seen(lambda: scene.crowd.on_the_way, 1)
        replica.process.send(signal.SIGSTOP)
        longest = (keeping.lease + 2 * BEAT).total_seconds()
        alone = seen(lambda: living() < len(scene.replicas), longest + 5)
        time.sleep(dice.uniform(0, 1))
        replica.process.send(signal.SIGCONT)
        return alone and seen(lambda: newest() > before, 10) and seen(replica.answers, 10)


class RolledOver(Fault):
    """All replicas are restarted, one after the other, as for an update."""

    name = "rolling restart"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Restart them in any order."""
        good = True
        for replica in dice.sample(scene.replicas, len(scene.replicas)):
            good &= replica.end()
            replica.start()
        return good


class Blackout(Fault):
    """All replicas and their server lose power at once; nobody is left to take over."""

    name = "blackout: kill -9 of all replicas and PostgreSQL"
    needs = frozenset({Needs.BRIDGE, Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Kill everything, and let it come up in any order."""
        keeping = _keeping(scene)
        with keeping.away():
            killed = [replica.kill() for replica in scene.replicas]
            keeping.server.kill()
        for replica in dice.sample(scene.replicas, len(scene.replicas)):
            replica.start()
        return all(killed)


def _keeping(scene: Scene) -> Shared:
    return cast("Shared", scene.keeping)


FAULTS = (
    ServerCrashes, ServerRestarted, ServerKilled, BackendsEnded, CommitUnheard, RowsHeld, AsleepTooLong, RolledOver,
    Blackout,
)  # fmt: skip

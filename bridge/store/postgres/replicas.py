"""The daemons that share a store: who is there, and whose messages each of them reduces.

Rules:
- The messages of a user are in one bucket, and a bucket is held by one replica at a time. So the messages of a user are
  reduced one after the other, in order of acceptance.
- The bucket of a message is that of its user. Where it names none (a command for a device), it is that of the user
  whose device it was when the door last accepted a message of that device; where no door has, that of the device. So it
  stands behind every message of that device that was acknowledged before it came. A message that names neither has
  nothing to keep in order with.
- A replica lives for `LEASE` of the server's clock after its last sign of life (`BEAT`). After that, or at once when it
  stops cleanly, the others take over: one transaction moves its counts and frees its buckets. From then on its counts
  have no row, so that whatever it still writes is refused as a whole (`TakenOver`); it begins anew as another replica.
- A replica with more than its share gives buckets back between two batches of its worker, never within one.

What "order" means with several doors: an id is drawn from one sequence while a message is accepted. A message that came
after another was acknowledged has the greater id, and the other is already there to be claimed. Messages on their way
at the same time, through whichever doors, have no order among them; the core takes either.
"""

import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from bridge.store.ledger import Ledger, total
from bridge.store.lives import IN_HAND
from bridge.store.postgres.connection import Connection
from bridge.store.postgres.line import SHARED, TakenOver, add

BUCKETS: Final = 256
"""Users are shared out in so many parts; more replicas than that would find nothing to do."""

LEASE: Final = timedelta(seconds=30)
"""How long a replica that is not heard of keeps what it has."""

BEAT: Final = timedelta(seconds=3)
"""How often a replica gives a sign of life and looks for its share."""

PARTS: Final = ("door", "work", "send", "desk")
"""The lines of a replica that count."""

_ledgers: Final = msgspec.json.Decoder(Ledger)


def bucket_of(name: str) -> int:
    """Return the bucket of a user or device; the same in every release and process."""
    return zlib.crc32(name.encode(errors="surrogatepass")) % BUCKETS


@dataclass(slots=True)
class Share:
    """What this replica has, as it last looked."""

    replica: int = SHARED
    works: bool = False
    buckets: list[int] = field(default_factory=list)
    surplus: int = 0  # buckets to give back
    alone: bool = False  # no other replica lives
    careful: bool = False  # messages of these buckets are to be taken one by one


_REGISTER: Final = """
INSERT INTO replica (id, until, works) VALUES (nextval('replica_id'), statement_timestamp() + $1, $2) RETURNING id
"""
_COUNTERS: Final = "INSERT INTO counter (replica, part, ledger) SELECT $1, unnest($2::text[]), '{}'"
_ALIVE: Final = """
UPDATE replica SET until = statement_timestamp() + $2, works = $3 WHERE id = $1 AND NOT gone RETURNING id
"""
# What a replica takes that is gone nobody frees again.
_STILL: Final = "SELECT id FROM replica WHERE id = $1 AND NOT gone FOR UPDATE"
_LATE: Final = """
SELECT id FROM replica WHERE NOT gone AND until < statement_timestamp() ORDER BY id FOR UPDATE SKIP LOCKED
"""
_OTHERS: Final = "SELECT count(*) FILTER (WHERE works), count(*) FROM replica WHERE NOT gone"
_MINE: Final = "SELECT id FROM bucket WHERE holder = $1 ORDER BY id"
_TAKE: Final = """
UPDATE bucket SET holder = $1
WHERE id IN (SELECT id FROM bucket WHERE holder IS NULL ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_GIVE: Final = """
UPDATE bucket SET holder = NULL
WHERE holder = $1 AND id IN (SELECT id FROM bucket WHERE holder = $1 ORDER BY id LIMIT $2)
"""
_END: Final = "INSERT INTO ended (replica, part, number) SELECT $1, * FROM unnest($2::text[], $3::bigint[])"
# By a clock that was set back since.
_HASTEN: Final = """
UPDATE replica SET until = statement_timestamp() + $1 WHERE NOT gone AND until > statement_timestamp() + $1
"""
_FORGET: Final = """
WITH gone AS (DELETE FROM replica WHERE gone AND until < statement_timestamp() - interval '1 day' RETURNING id)
DELETE FROM ended USING gone WHERE ended.replica = gone.id
"""


async def register(con: Connection, lease: timedelta, *, works: bool) -> int:
    """Enter a new replica."""
    async with con.transaction():
        replica: int = await con.fetchval(_REGISTER, lease, works)
        await con.execute(_COUNTERS, replica, list(PARTS))
    return replica


async def beat(con: Connection, share: Share, lease: timedelta) -> None:
    """Give a sign of life, take over from the dead, take free buckets up to the fair share.

    Raises TakenOver where others have declared this replica dead.
    """
    async with con.transaction():
        if await con.fetchval(_ALIVE, share.replica, lease, share.works) is None:
            raise TakenOver
    async with con.transaction():
        if await con.fetchval(_STILL, share.replica) is None:  # it may have slept
            raise TakenOver
        for row in await con.fetch(_LATE):
            await take_over(con, row[0])
        ((working, living),) = await con.fetch(_OTHERS)
        share.alone = living == 1
        mine = [row[0] for row in await con.fetch(_MINE, share.replica)]
        fair = -(-BUCKETS // max(1, working)) if share.works else 0
        if len(mine) < fair:
            await con.execute(_TAKE, share.replica, fair - len(mine))
            mine = [row[0] for row in await con.fetch(_MINE, share.replica)]
        await con.execute(_FORGET)
        share.careful = await con.fetchval(_SUSPECTS, mine)
    share.buckets, share.surplus = mine, max(0, len(mine) - fair)


async def hasten(con: Connection, lease: timedelta) -> None:
    """Let no replica live for longer than a lease without a sign of life: the server's clock was set back."""
    await con.execute(_HASTEN, lease)


async def give_back(con: Connection, share: Share) -> None:
    """Give buckets back that others have a right to; called between two batches."""
    await con.execute(_GIVE, share.replica, share.surplus)
    share.buckets = [row[0] for row in await con.fetch(_MINE, share.replica)]
    share.surplus = 0


async def take_over(con: Connection, replica: int, *, in_order: bool = False) -> None:
    """End a replica: its counts go to the shared ones, its buckets are free. Lanes come back when their leases end.

    What the worker of one that did not end `in_order` had in hand is taken one by one.
    """
    rows = await con.fetch("DELETE FROM counter WHERE replica = $1 RETURNING ledger, part, number, hand", replica)
    if in_order:
        await con.execute(_LET_GO, replica)
    else:
        await _suspect(con, replica, next((row[3] for row in rows if row[3]), None))
    await con.execute(_END, replica, [row[1] for row in rows], [row[2] for row in rows])
    await con.execute("UPDATE replica SET gone = true WHERE id = $1", replica)
    await con.execute("UPDATE bucket SET holder = NULL WHERE holder = $1", replica)
    await add(con, "gone", total(_ledgers.decode(row[0]) for row in rows))


_SUSPECTS: Final = "SELECT EXISTS (SELECT FROM waiting WHERE suspect IS NOT NULL AND bucket = ANY($1::smallint[]))"
_LET_GO: Final = "UPDATE waiting SET suspect = 0, ends = ends - 1 WHERE suspect IS NOT NULL AND suspect = $1"
_NAMED: Final = "UPDATE waiting SET suspect = 0 WHERE id = ANY($1) AND suspect IS NULL"
_FIRST: Final = """
UPDATE waiting SET suspect = 0 WHERE (id, bucket) IN (
    SELECT id, bucket FROM waiting WHERE bucket = ANY($1::smallint[]) ORDER BY place LIMIT $2
)
"""


async def _suspect(con: Connection, replica: int, hand: list[int] | None) -> None:
    """Mark what a replica had in hand: what it named, else the first that waited; nothing while it took one by one."""
    buckets = [row[0] for row in await con.fetch(_MINE, replica)]
    if await con.fetchval(_SUSPECTS, buckets):
        return
    if hand is None:
        await con.execute(_FIRST, buckets, IN_HAND)
    else:
        await con.execute(_NAMED, hand)

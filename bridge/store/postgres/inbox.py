"""The log of raw messages: what comes in, what waits, what is done.

Theory of operation: a message is a row of the log, which never changes, and while it waits a small row in `waiting`.
Settling deletes that one. A cursor as in the embedded store would pass over a message whose transaction commits later
than that of a greater id.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.vocabulary import DeadReason
from bridge.store import entries
from bridge.store.codec import plain, to_ms
from bridge.store.entries import CLAIM_BYTES, Key, pending
from bridge.store.ledger import Ledger
from bridge.store.port import Arrival, Pending, Receipt, Work
from bridge.store.postgres.clock import NOW
from bridge.store.postgres.connection import Connection, changed, columns
from bridge.store.postgres.replicas import BUCKETS, bucket_of
from bridge.store.repeats import BYTES, Heard, Verdict, read, written
from bridge.store.shares import Held, message_bytes

AGAIN: Final = 1 << 62
"""Taken from an id for the place of a message that waits once more: before those that wait for the first time."""

DAY_MS: Final = 86_400_000
"""How often it is written anew that a device is still the same user's."""

END_OF_TIME: Final = 1 << 62
"""Later than any receipt [ms]."""

FRONT: Final = 1_000
"""How many of those that wait longest are looked at for the earliest receipt: doors accept side by side."""


@dataclass(slots=True, kw_only=True)
class Entry(entries.Entry):
    """An arrival, and whose it is as far as the message says."""

    user: str | None = None
    device: str | None = None


def entry(arrival: Arrival, user: str | None, device: str | None) -> Entry:
    """Prepare an arrival; `user` and `device` as far as the message names them."""
    row = Entry.of(arrival)
    row.user = None if user is None else plain(user)
    row.device = None if device is None else plain(device)
    return row


# ---- the door -------------------------------------------------------------------------------------------------------

# Sorted, so that two doors with the same repeats wait for each other in one direction only.
_SEEN: Final = f"""
WITH new AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bytea[], $5::text[])
        WITH ORDINALITY AS new (message_id, subscription, position, digest, heard, place)
), kept AS (
    INSERT INTO seen (message_id, subscription, position, digest, heard)
    SELECT message_id, subscription, position, digest, heard FROM new ORDER BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING RETURNING message_id, subscription, position, digest
)
SELECT new.place - 1, EXISTS (
    SELECT FROM seen WHERE seen.message_id = new.message_id AND seen.subscription = new.subscription
        AND seen.position = new.position AND substr(seen.digest, 1, {BYTES}) <> substr(new.digest, 1, {BYTES})
)
FROM new JOIN kept USING (message_id, subscription, position, digest)
"""  # noqa: S608 - a constant
# Of those that another door has accepted meanwhile too: it is committed, for the insert above has waited for it.
_HEARD: Final = """
SELECT message_id, subscription, position, digest, heard
FROM unnest($1::text[], $2::text[], $3::integer[], $4::bytea[]) AS asked (message_id, subscription, position, digest)
JOIN seen USING (message_id, subscription, position, digest)
WHERE heard IS NOT NULL ORDER BY 1, 2, 3, 4 FOR UPDATE OF seen
"""
_HEARD_AGAIN: Final = """
UPDATE seen SET heard = new.heard
FROM unnest($1::text[], $2::text[], $3::integer[], $4::bytea[], $5::text[])
    AS new (message_id, subscription, position, digest, heard)
WHERE seen.message_id = new.message_id AND seen.subscription = new.subscription AND seen.position = new.position
    AND seen.digest = new.digest
"""
_STORE: Final = """
WITH fresh AS MATERIALIZED (
    SELECT nextval('message_id') AS id, new.* FROM (
        SELECT * FROM unnest(
            $1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::integer[], $7::bytea[], $8::bytea[],
            $9::boolean[]
        ) WITH ORDINALITY AS new (
            bucket, subscription, topic, received, message_id, position, digest, body, waits, row
        ) ORDER BY row
    ) AS new
), log AS (
    INSERT INTO inbox (id, bucket, subscription, topic, received, message_id, position, digest, body)
    SELECT id, bucket, subscription, topic, received, message_id, position, digest, body FROM fresh
), queue AS (
    INSERT INTO waiting (id, bucket, place, received, size)
    SELECT id, bucket, id, received, octet_length(body) FROM fresh WHERE waits
)
SELECT id FROM fresh ORDER BY id
"""
_LETTERS: Final = """
INSERT INTO letter (reason, detail, at, user_id, message, subscription)
SELECT reason, detail, at, user_id, message, subscription
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
    WITH ORDINALITY AS new (reason, detail, at, user_id, message, subscription, row)
ORDER BY row
"""


async def accept(con: Connection, ledger: Ledger, entries: Sequence[Entry], belongs: "Belongs") -> list[Receipt]:
    """Store new messages, tell repeats apart."""
    verdicts = await _judged(con, ledger, entries)
    fresh = [
        row.replayed() if verdict is Verdict.REPLAYED else row
        for row, verdict in zip(entries, verdicts, strict=True)
        if verdict is not Verdict.REPEAT
    ]
    ledger.duplicates += len(entries) - len(fresh)
    if not fresh:
        return [Receipt(id=0, duplicate=True)] * len(entries)
    buckets = await belongs.buckets(con, fresh)
    rows = [
        (
            *(bucket, r.subscription, r.topic, r.received, r.message_id, r.position),
            *(None if r.key is None or r.dead is DeadReason.REPLAYED else r.key[3], r.body, r.dead is None),
        )
        for bucket, r in zip(buckets, fresh, strict=True)
    ]
    numbers = [row[0] for row in await con.fetch(_STORE, *columns(rows, 9))]
    ledger.take_in(len(fresh), sum(len(row.body) for row in fresh))
    ledger.hold(((row.subscription, message_bytes(len(row.body))) for row in fresh), into="pending")
    dead = [(row, number) for row, number in zip(fresh, numbers, strict=True) if row.dead is not None]
    if dead:
        letters = [(row.dead, row.detail, row.received, None, number, row.subscription) for row, number in dead]
        await con.execute(_LETTERS, *columns(letters, 6))
        for row, _ in dead:
            ledger.bury_message(str(row.dead))
        ledger.hold(((r.subscription, message_bytes(len(r.body))) for r, _ in dead), out="pending", into="dead")
    found = iter(numbers)
    return [
        Receipt(id=0, duplicate=True)
        if verdict is Verdict.REPEAT
        else Receipt(id=next(found), replayed=verdict is Verdict.REPLAYED)
        for verdict in verdicts
    ]


async def _judged(con: Connection, ledger: Ledger, entries: Sequence[Entry]) -> list[Verdict]:
    """Return what each message is, and remember it."""
    first: dict[Key, Entry] = {}
    for row in entries:
        if row.key is not None:
            first.setdefault(row.key, row)
    if not first:
        return [Verdict.NEW] * len(entries)
    asked = [(*key, None if row.signed is None else row.first_heard) for key, row in first.items()]
    kept: dict[int, bool] = dict(await con.fetch(_SEEN, *columns(asked, 5)))
    known = {key for number, key in enumerate(first) if number not in kept}
    digests: dict[tuple[str, str, int], set[bytes]] = {}
    for number, key in enumerate(first):
        others = digests.setdefault(key[:3], set())
        if key not in known and (kept[number] or others - {key[3][:BYTES]}):
            ledger.same_id_other_bytes += 1
        others.add(key[3][:BYTES])
    if not known and len(first) == len(entries):
        return [Verdict.NEW] * len(entries)
    return await _told_apart(con, entries, first, known)


async def _told_apart(
    con: Connection, entries: Sequence[Entry], first: Mapping[Key, Entry], known: Collection[Key]
) -> list[Verdict]:
    """Return what each message is where some are known: by `first` in this round, or before it."""
    signed = [key for key in known if first[key].signed is not None]
    rows = await con.fetch(_HEARD, *columns(signed, 4)) if signed else ()
    heard: dict[Key, Heard | None] = {(row[0], row[1], row[2], row[3]): read(row[4]) for row in rows}
    verdicts: list[Verdict] = []
    again: dict[Key, Heard] = {}
    for row in entries:
        key = row.key
        if key is None or (first[key] is row and key not in known):
            verdicts.append(Verdict.NEW)
            continue
        before = heard.get(key) if key in known else heard.setdefault(key, first[key].heard)
        if before is None or row.signed is None:
            verdicts.append(Verdict.REPEAT)
            continue
        verdict, changed_ = before.judge(row.topic, row.signed)
        verdicts.append(verdict)
        if changed_:
            again[key] = before
    if again:
        await con.execute(_HEARD_AGAIN, *columns([(*key, written(what)) for key, what in again.items()], 5))
    return verdicts


class Belongs:
    """Whose a device was when it was last heard of: for messages that name no user.

    Rules:
    - Written by the transaction that accepts the message that says so, read by the one that accepts a message without.
    - What this process has written it writes again after a while only: another door may have heard otherwise.
    - A row is needed as long as a message that said so may wait; it goes when none of the age can any more.
    """

    MOST: Final = 100_000
    """Devices remembered as written; then all are forgotten."""

    def __init__(self) -> None:
        """Begin without any."""
        self._written: dict[str, str] = {}

    def forget(self) -> None:
        """Write everything again."""
        self._written.clear()

    async def buckets(self, con: Connection, rows: Sequence[Entry]) -> list[int]:
        """Return the bucket of each message."""
        told = {row.device: row for row in rows if row.device is not None and row.user is not None}
        new = [
            (device, row.user, row.received) for device, row in told.items() if self._written.get(device) != row.user
        ]
        if new:
            await con.execute(_TELL, *columns(new, 3))
            if len(self._written) > self.MOST:
                self.forget()
            self._written.update((device, str(user)) for device, user, _ in new)
        stray = {row.device for row in rows if row.user is None and row.device is not None}
        known: dict[str, str] = dict(await con.fetch(_ASK, list(stray))) if stray else {}
        return [_bucket(row, known) for row in rows]


# Rows that say the same are left alone, not even locked.
_TELL: Final = f"""
INSERT INTO belongs (device, user_id, heard)
SELECT device, user_id, heard FROM unnest($1::text[], $2::text[], $3::bigint[]) AS new (device, user_id, heard)
WHERE NOT EXISTS (
    SELECT FROM belongs WHERE belongs.device = new.device AND belongs.user_id = new.user_id
        AND belongs.heard > new.heard - {DAY_MS}
)
ORDER BY device
ON CONFLICT (device) DO UPDATE SET user_id = excluded.user_id, heard = excluded.heard
"""  # noqa: S608 - a constant
_ASK: Final = "SELECT device, user_id FROM belongs WHERE device = ANY($1)"


def _bucket(row: Entry, known: dict[str, str]) -> int:
    """Return the bucket of a message: of its user, of its device's, of its device, or any."""
    if row.user is not None:
        return bucket_of(row.user)
    if row.device is not None:
        return bucket_of(known.get(row.device, row.device))
    return row.received % BUCKETS


# ---- the worker -----------------------------------------------------------------------------------------------------

_CLAIM: Final = f"""
SELECT id, subscription, topic, inbox.received, body
FROM (
    SELECT id, bucket, place, sum(size) OVER (ORDER BY place) - size AS before
    FROM (SELECT * FROM waiting WHERE $2 OR bucket = ANY($1::smallint[]) ORDER BY place LIMIT $3) AS first
) AS first JOIN inbox USING (id, bucket)
WHERE before < {CLAIM_BYTES}
ORDER BY place
"""  # noqa: S608 - a constant
_CHANGED: Final = """
SELECT user_id, change FROM changed WHERE $2 OR bucket = ANY($1::smallint[]) ORDER BY change LIMIT $3
"""


async def claim(con: Connection, buckets: list[int], limit: int, *, everything: bool) -> list[Pending]:
    """Return the messages of some buckets that have waited longest."""
    return [pending(row) for row in await con.fetch(_CLAIM, buckets, everything, limit)]


_TAKE: Final = """
WITH first AS (
    SELECT id, bucket FROM waiting WHERE suspect IS NOT NULL AND bucket = ANY($1::smallint[]) ORDER BY place LIMIT 1
), taken AS (
    UPDATE waiting SET suspect = $2, ends = ends + (suspect <> $2)::int FROM first
    WHERE waiting.id = first.id AND waiting.bucket = first.bucket RETURNING waiting.id, waiting.bucket, ends
)
SELECT id, subscription, topic, inbox.received, body, ends FROM taken JOIN inbox USING (id, bucket)
"""


async def take(con: Connection, buckets: list[int], replica: int) -> list[Pending]:
    """Return the next message of some buckets that is taken alone, and note that this replica does."""
    return [pending(row, ends) for *row, ends in await con.fetch(_TAKE, buckets, replica)]


async def name_hand(con: Connection, replica: int, ids: Sequence[int]) -> None:
    """Remember which messages the worker of a replica takes next."""
    await con.execute(_HAND, replica, list(ids) or None)


_HAND: Final = "UPDATE counter SET hand = $2 WHERE replica = $1 AND part = 'work'"


async def changes(con: Connection, buckets: list[int], limit: int, *, everything: bool) -> dict[str, int]:
    """Return users of some buckets whose directory rows changed, and the change."""
    return dict(await con.fetch(_CHANGED, buckets, everything, limit))


_CHANGED_AMONG: Final = "SELECT user_id, change FROM changed WHERE user_id = ANY($1) ORDER BY change"


async def changed_among(con: Connection, users: Sequence[str]) -> dict[str, int]:
    """Return which of some users have changed directory rows, and which change it was."""
    return dict(await con.fetch(_CHANGED_AMONG, list(users)))


_FRONT: Final = f"""
SELECT min(received), {NOW} FROM (
    (SELECT received FROM waiting WHERE place > 0 ORDER BY place LIMIT {FRONT})
    UNION ALL (SELECT received FROM waiting WHERE place < 0 ORDER BY place LIMIT 1)
) AS front
"""  # noqa: S608 - a constant


async def oldest_pending(con: Connection) -> int | None:
    """Return the earliest receipt of those that have waited longest [ms]."""
    found: int | None = await con.fetchval(_FRONT)  # the first column
    return found


async def front(con: Connection) -> tuple[int | None, float]:
    """Return the same, and what time it is for the server [epoch s]."""
    ((oldest, told),) = await con.fetch(_FRONT)
    return oldest, told


_CURSOR: Final = """
SELECT coalesce(
    (SELECT place - 1 FROM waiting WHERE place > 0 ORDER BY place LIMIT 1),
    (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM message_id)
)
"""


async def cursor(con: Connection) -> int:
    """Return up to which id every message has been processed, unless it waits once more."""
    found: int = await con.fetchval(_CURSOR)
    return found


_DONE: Final = "DELETE FROM waiting WHERE id = ANY($1) RETURNING id, bucket, place"
_PARK: Final = """
INSERT INTO parked (id, bucket, user_id) SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[])
"""


_HELD: Final = "SELECT id, subscription, octet_length(body) FROM inbox WHERE id = ANY($1)"


async def held(con: Connection, ids: Collection[int], known: Mapping[int, Held] | None = None) -> dict[int, Held]:
    """Return whose messages are, and what they count [bytes]; those that are not `known` are read."""
    found = {number: known[number] for number in ids if number in known} if known else {}
    if len(found) < len(ids):
        for number, subscription, length in await con.fetch(_HELD, sorted(set(ids) - found.keys())):
            found[number] = subscription, message_bytes(length)
    return found


async def process(
    con: Connection, ledger: Ledger, work: Work, known: Mapping[int, Held]
) -> tuple[set[int], int | None]:
    """Take messages out of those that wait: settled, dead or parked.

    `known` is whose some of them are, and what they count.
    Returns those that did wait, and the first that is settled late, after newer ones: it had waited once more.
    """
    named = {*work.settled, *(n for n, _, _ in work.dead), *(n for n, _ in work.parked)}
    if not named:
        return set(), None
    rows = await con.fetch(_DONE, sorted(named))
    waited: dict[int, int] = {row[0]: row[1] for row in rows}
    late = min({row[0] for row in rows if row[2] < 0}.intersection(work.settled), default=None)
    holds = await held(con, waited, known)
    ledger.hold(holds.values(), out="pending")
    ledger.settle(len(waited.keys() & set(work.settled)))
    dead = [row for row in work.dead if row[0] in waited]
    if dead:
        now = to_ms(work.now)
        letters = [
            (reason, plain(detail), now, work.users.get(number), number, holds[number][0])
            for number, reason, detail in dead
        ]
        await con.execute(_LETTERS, *columns(letters, 6))
        for _, reason, _ in dead:
            ledger.bury_message(reason)
        ledger.hold((holds[number] for number, _, _ in dead), into="dead")
    parked = [(number, waited[number], user) for number, user in work.parked if number in waited]
    if parked:
        ledger.park(len(parked))
        ledger.hold((holds[number] for number, _, _ in parked), into="parked")
        await con.execute(_PARK, *columns(parked, 3))
    return set(waited), late


# ---- parked ---------------------------------------------------------------------------------------------------------

_FREE: Final = f"""
WITH freed AS (DELETE FROM parked WHERE user_id = ANY($1) RETURNING id, bucket), again AS (
    INSERT INTO waiting (id, bucket, place, received, size)
    SELECT id, bucket, id - {AGAIN}, received, octet_length(body) FROM freed JOIN inbox USING (id, bucket)
    RETURNING id
)
SELECT subscription, octet_length(body) FROM again JOIN inbox USING (id)
"""  # noqa: S608 - a constant
_DEALT_WITH: Final = """
DELETE FROM changed USING unnest($1::text[], $2::bigint[]) AS dealt (user_id, change)
WHERE changed.user_id = dealt.user_id AND changed.change <= coalesce(dealt.change, changed.change)
"""
_AGAIN: Final = f"""
INSERT INTO waiting (id, bucket, place, received, size)
SELECT id, bucket, id - {AGAIN}, received, octet_length(body) FROM inbox WHERE id = ANY($1)
"""  # noqa: S608 - a constant


async def unpark(con: Connection, ledger: Ledger, shown: dict[str, int], users: Sequence[str]) -> None:
    """Let the messages of users wait once more; forget the changes that the worker was shown, not newer ones."""
    if users:
        freed = await con.fetch(_FREE, list(users))
        ledger.unpark(len(freed))
        ledger.hold(((row[0], message_bytes(row[1])) for row in freed), out="parked", into="pending")
        await con.execute(_DEALT_WITH, list(users), [shown.get(user) for user in users])


async def again(con: Connection, ids: Collection[int]) -> None:
    """Let messages wait once more."""
    if ids:
        await con.execute(_AGAIN, list(ids))


# ---- gone -----------------------------------------------------------------------------------------------------------

_GONE: Final = """
WITH gone AS (
    DELETE FROM inbox WHERE id = ANY($1)
    RETURNING id, received, octet_length(body) AS size, message_id, subscription, position, digest
), unseen AS (
    DELETE FROM seen USING gone
    WHERE seen.message_id = gone.message_id AND seen.subscription = gone.subscription
        AND seen.position = gone.position AND seen.digest = gone.digest AND gone.received < $2
), still AS (
    INSERT INTO early (received, message_id, subscription, position, digest)
    SELECT received, message_id, subscription, position, digest FROM gone
    WHERE received >= $2 AND digest IS NOT NULL ORDER BY id
)
SELECT received, size FROM gone
"""
_HUNG: Final = ("DELETE FROM note WHERE message = ANY($1)", "DELETE FROM discarded WHERE id = ANY($1)")


async def forget_rows(con: Connection, ledger: Ledger, ids: Sequence[int], *, young: int = END_OF_TIME) -> list[int]:
    """Delete messages with their notes and the digests that know a repeat; return their receipts [ms].

    Digests of messages that came at `young` [ms] or later stay.
    """
    gone = await con.fetch(_GONE, list(ids), young)
    for statement in _HUNG:
        await con.execute(statement, list(ids))
    ledger.inbox_rows -= len(gone)
    ledger.inbox_bytes -= sum(row[1] for row in gone)
    return [row[0] for row in gone]


_EARLY_GONE: Final = """
WITH first AS MATERIALIZED (
    SELECT * FROM early ORDER BY place LIMIT $2
), gone AS MATERIALIZED (
    SELECT * FROM first
    WHERE place < coalesce(
        (SELECT min(place) FROM first WHERE received >= least($1::bigint, $3::bigint)), 1::bigint << 62
    )
), unseen AS (
    DELETE FROM seen USING gone
    WHERE seen.message_id = gone.message_id AND seen.subscription = gone.subscription
        AND seen.position = gone.position AND seen.digest = gone.digest
)
DELETE FROM early USING gone WHERE early.place = gone.place AND early.message_id = gone.message_id
"""


async def forget_early(con: Connection, edge: int, young: int, limit: int) -> int:
    """Delete, from the front, what knows the repeats of messages that went early and are older than the edge [ms].

    Of those that came at `young` [ms] or later it stays in any case.
    """
    return changed(await con.execute(_EARLY_GONE, edge, limit, young))


_UNHEARD: Final = """
DELETE FROM belongs USING (SELECT device FROM belongs WHERE heard < $1 ORDER BY heard LIMIT $2) AS old
WHERE belongs.device = old.device AND belongs.heard < $1
"""


async def forget_devices(con: Connection, edge: int, limit: int) -> int:
    """Delete whose devices are that were not heard of since a day before an age [ms], or before what still waits."""
    oldest = await oldest_pending(con)
    return changed(await con.execute(_UNHEARD, (edge if oldest is None else min(edge, oldest)) - DAY_MS, limit))


_EARLY_ROWS: Final = "SELECT coalesce((SELECT max(place) FROM early) - (SELECT min(place) FROM early) + 1, 0)"


async def early_rows(con: Connection) -> int:
    """Return how many messages went early and have their repeats known still."""
    found: int = await con.fetchval(_EARLY_ROWS)
    return found

"""Attacks of a sender with a valid secret: lines 7 to 15 of the promise."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from tests.isolation.canary import HOMES, PREFIX, message
from tests.isolation.ground import RATE_LIMIT
from tests.isolation.row import Attack, Row
from tests.isolation.wire import dump, request, signature, signed, stamp

MAD: Final = "127.0.0.99"
ARRAY: Final = 1_000
DOOR_OPENS_S: Final = 10.0
CUT_OFF_S: Final = 1.0  # what was due so shortly before a kill may be cut off by it
MEMORY_MB: Final = 512  # as the shipped compose file and manifests set it
STORE_MB: Final = 96


async def posting(attack: Attack, requests: Iterator[bytes], connections: int = 4) -> None:
    """Post one after the other over some connections, for as long as there are any and time is left."""

    def until_over() -> Iterator[bytes]:
        for one in requests:
            if attack.left <= 0:
                return
            yield one

    shared = until_over()
    await attack.together(*(attack.lines.post(shared, MAD) for _ in range(connections)))


def device(id_: str, user: str | None, at: datetime | None = None, /, **blocks: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a device; each block gets the time."""
    when = stamp(at)
    own = {name: {**block, "lastUpdated": when} for name, block in blocks.items()}
    return {"id": id_, "userId": user, "isOnline": True, "lastUpdated": when, **own}


def arrays(topic: str, messages: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yield signed arrays of messages of one topic."""
    batch: list[dict[str, Any]] = []
    for each in messages:
        batch.append(each)
        if len(batch) == ARRAY:
            yield signed(topic, batch)
            batch = []


# ---- 7 --------------------------------------------------------------------------------------------------------------


async def foreign_devices(attack: Attack) -> None:
    """Write the canary's cars, without a user and with one of one's own."""

    def requests() -> Iterator[bytes]:
        for number in count():
            home = number % HOMES
            for user in (None, "mine"):
                yield signed("vehicle.update", {**message(home, 66.6), "userId": user})
                yield signed("vehicle.delete", {"id": f"car-{home}", "userId": user})
                yield signed("vehicle.offline", {"id": f"car-{home}", "userId": user, "isOnline": False})
                yield signed("vehicle.connect", {**message(home, 66.6), "userId": user, "locationId": "elsewhere"})

    await posting(attack, requests())


# ---- 8 --------------------------------------------------------------------------------------------------------------


async def deletes(attack: Attack) -> None:
    """Delete devices that never were, of one household."""
    gone = ({"id": f"gone-{n}", "userId": "constant", "lastUpdated": stamp()} for n in count())
    await posting(attack, arrays("vehicle.delete", gone))


async def long_names(attack: Attack) -> None:
    """Give devices names of 345 KB."""

    def requests() -> Iterator[bytes]:
        for number in count():
            said = message(number % 20, number % 100)
            said["id"], said["userId"] = f"long-{number % 20}", "constant"
            said["staticData"]["name"] = f"{number} " + "<b>x</b>" * 43_000
            yield signed("vehicle.update", said)

    await posting(attack, requests())


async def prices(attack: Attack) -> None:
    """Send 15,000 prices in each body, a minute apart."""

    def requests() -> Iterator[bytes]:
        now = datetime.now(UTC)
        yield signed("tariff.connect", device("tariff", "constant", staticData={"currency": "EUR", "vendor": "TIBBER"}))
        for number in count():
            start = now + timedelta(minutes=15_000 * (number % 5))
            entries = [
                {"startDate": stamp(start + timedelta(minutes=n)), "totalPrice": n % 100 / 100} for n in range(15_000)
            ]
            yield signed("tariff.price.update", {"id": "tariff", "userId": "constant", "prices": entries})
            few = [
                {"startDate": stamp(now + timedelta(hours=n, minutes=number % 60)), "totalPrice": 0.3} for n in range(9)
            ]
            yield signed("tariff.price.update", {"id": "tariff", "userId": "constant", "prices": few})

    await posting(attack, requests(), 2)


async def samples(attack: Attack) -> None:
    """Fill one open quarter hour with a backfill, the newest first."""

    def messages() -> Iterator[dict[str, Any]]:
        end = datetime.now(UTC)
        for number in count():
            at = end - timedelta(milliseconds=number % 600_000)
            yield device("meter", "constant", at, powerState={"power": number % 1000 / 100})

    await posting(attack, arrays("meter.update", messages()))


# ---- 9 --------------------------------------------------------------------------------------------------------------


async def devices(attack: Attack) -> None:
    """Send thousands of devices with one constant user id."""

    def messages() -> Iterator[dict[str, Any]]:
        for number in count():
            power = {"solarPower": number % 50 / 10, "state": "PRODUCING"}
            yield device(f"inverter-{number % 4_500}", "constant", powerState=power)

    await posting(attack, arrays("pv-inverter.update", messages()))


async def closes(attack: Attack) -> None:
    """Change thousands of inverters of ten buildings in quarter hours that close at once."""

    def messages() -> Iterator[dict[str, Any]]:
        since = datetime.now(UTC) - timedelta(hours=6)
        for number in count():
            at = since + timedelta(seconds=number // 2_000 * 450 + number % 400)
            power = {"solarPower": number % 50 / 10, "state": "PRODUCING"}
            yield device(f"inverter-{number % 2_000}", f"home-{number % 10}", at, powerState=power)

    await posting(attack, arrays("pv-inverter.update", messages()))


# ---- 10, 11 ---------------------------------------------------------------------------------------------------------


def heavy() -> Iterator[bytes]:
    """Yield bodies of a megabyte that cost as much as can be."""
    ones = b"[" + b"1," * 470_000 + b"1]"
    wrong = b"[" + b'{"startDate":1},' * 60_000 + b"{}]"
    schedules = b"[" + b'{"id":1,"mode":"HEAT"},' * 42_000 + b"{}]"

    def hvac(name: str, **fields: bytes) -> bytes:
        inner = b",".join(b'"%b":%b' % (key.encode(), value) for key, value in fields.items())
        said = device(name, "constant", climateState={"temperatureCurrent": 20})
        return dump(said).replace(b'"temperatureCurrent":20', b'"temperatureCurrent":20,' + inner)

    for number in count():
        yield signed("hvac.update", hvac("heatpump", temperatureTargets=ones))
        yield signed("hvac.update", hvac("heatpump", capableModes=ones))
        yield signed("tariff.price.update", b'{"id":"t","userId":"constant","prices":%b}' % wrong)
        yield signed("vehicle.update", b"[" + b"," * 1_000_000)
        updates = b'{"id":"pump-%d","userId":"constant","schedules":%b}' % (number % 40, schedules)
        yield signed("hvac.schedules.update", updates)
        yield signed("meter.update", b"[" * 500_000)
        yield signed("meter.update", b'{"id":"m","userId":"constant","powerState":{"power":%b}}' % (b"1" * 900_000))


async def heavy_messages(attack: Attack) -> None:
    """Send bodies of a megabyte that cost as much as can be."""
    await posting(attack, heavy(), 2)


async def crash_loop(attack: Attack) -> None:
    """Send heavy bodies to a daemon with little memory that is killed twice meanwhile."""
    subject = attack.subject
    task = asyncio.ensure_future(posting(attack, heavy(), 2))
    opened = []
    for _ in range(2):
        await asyncio.sleep(max(0.1, attack.left / 4))
        began = time.monotonic()
        attack.down.append((began - CUT_OFF_S, float("inf")))
        await asyncio.to_thread(subject.kill)
        await asyncio.to_thread(subject.start)
        opened.append(time.monotonic() - began)
        attack.down[-1] = (began - CUT_OFF_S, time.monotonic())
    await task
    attack.notes.append(f"door opened {max(opened):.1f} s after a kill")
    if max(opened) > DOOR_OPENS_S:
        attack.wrong.append(f"door opened {max(opened):.1f} s after a kill")


# ---- 12 -------------------------------------------------------------------------------------------------------------


async def dead_letters(attack: Attack) -> None:
    """Fill the store with dead letters."""

    def requests() -> Iterator[bytes]:
        for number in count():
            yield signed("vehicle.update", b"%d " % number + b"no JSON " * 110_000)

    await posting(attack, requests())


async def owed(attack: Attack) -> None:
    """Fill the store with messages, faster than they can be worked off."""

    def requests() -> Iterator[bytes]:
        for number in count():
            padding = {"padding": "x" * 200}
            yield signed(
                "vehicle.command", [{"id": f"{number}-{n}", "userId": f"u-{n}", **padding} for n in range(ARRAY)]
            )

    await posting(attack, requests())


def others_are_let_in(attack: Attack) -> None:
    """See that the door is open to others, and after a restart too."""
    raw = signed("vehicle.update", message(0, 12.345), "canary")
    held_mb = attack.subject.metric('bridge_subscription_store_bytes{subscription="mad"}') / 1e6
    attack.notes.append(f"the mad one holds {held_mb:.0f} MB; limits {attack.subject.health()['limits']}")

    async def ask() -> int:
        statuses = [0]
        async with attack.lines.line("127.0.0.1") as line:
            statuses.append((await line.ask(raw)).status)
        return statuses[-1]

    for when in ("at the end", "after a restart"):
        status = asyncio.run(ask())
        if status != 202:
            attack.wrong.append(f"{when} the canary is answered {status}")
        if when == "at the end":
            attack.subject.end()
            attack.subject.start()


# ---- 13 -------------------------------------------------------------------------------------------------------------


async def new_users(attack: Attack) -> None:
    """Send 6,000 new households in a burst, and more."""

    def messages() -> Iterator[dict[str, Any]]:
        for number in count():
            yield {**message(number, number % 100), "id": f"new-{number}", "userId": f"new-{number}"}

    await posting(attack, arrays("vehicle.update", messages()))


async def backfill(attack: Attack) -> None:
    """Open a past of a day for a thousand users by two messages each."""

    def requests() -> Iterator[bytes]:
        for turn in count():
            for at in (datetime.now(UTC) - timedelta(hours=23, minutes=30), datetime.now(UTC)):
                batch = [
                    device(f"meter-{turn}-{n}", f"past-{turn}-{n}", at, powerState={"power": 0}) for n in range(ARRAY)
                ]
                yield signed("meter.update", batch)

    await posting(attack, requests(), 1)


# ---- 14, 15 ---------------------------------------------------------------------------------------------------------


async def captured(attack: Attack) -> None:
    """Send a captured request of the canary again, with ids that nobody signed, and on another topic."""
    said = {**message(0, 77.777), "id": "captured", "userId": "home-captured"}
    body = dump(said)
    headers = signature("canary", body)
    attack.own.add(f"{PREFIX}home-captured 77.777")

    def again() -> Iterator[bytes]:
        yield request("/webhooks/canary.vehicle.update", body, headers)
        for number in range(60):
            more = {"ce-id": f"another-{number}", "svix-id": f"another-{number}", "ce-source": "x"}
            yield request("/webhooks/canary.vehicle.update", body, headers | more)
        for action in ("delete", "offline", "disconnect"):
            yield request(f"/webhooks/canary.vehicle.{action}", body, headers)

    accepted = []
    async with attack.lines.line(MAD) as line:
        for raw in again():
            answer = await line.ask(raw)
            accepted.append(answer.json().get("accepted", 0))
    attack.notes.append(f"stored {accepted}" if sum(accepted) > 5 else f"stored {sum(accepted)}")
    if sum(accepted[:-3]) != 1:
        attack.wrong.append(f"one captured request was stored {sum(accepted[:-3])} times")
    letters = attack.subject.health()["dead_letters"]
    if letters.get("replayed", 0) != 1:
        attack.wrong.append(f"dead letters {letters}, not one `replayed`")


async def rate_limit(attack: Attack) -> None:
    """Send arrays of a thousand where five messages a second are allowed."""
    began, accepted, waits = time.monotonic(), 0, list[int]()
    async with attack.lines.line(MAD) as line:
        while attack.left > 0:
            batch = [{**message(n, 50), "id": f"limited-{n}", "userId": f"limited-{n}"} for n in range(ARRAY)]
            answer = await line.ask(signed("vehicle.update", batch, "limited"))
            if answer.status == 202:
                accepted += answer.json()["accepted"]
            else:
                waits.append(int(answer.headers.get("retry-after", "0")))
            await asyncio.sleep(0.1)
    fair = ARRAY + RATE_LIMIT * (time.monotonic() - began + 1)
    attack.notes.append(f"{accepted} accepted, Retry-After {max(waits, default=0)} s")
    if accepted > fair:
        attack.wrong.append(f"{accepted} messages taken, {fair:.0f} are fair")
    if accepted and not waits:
        attack.wrong.append("nobody was told to wait")
    if accepted and waits and min(waits) < (ARRAY / RATE_LIMIT) * 0.8:
        attack.wrong.append(f"Retry-After {min(waits)} s is not true")


_STORE: Final = f'max_size = "{STORE_MB}MiB"'

ROWS: Final[Sequence[Row]] = (
    Row(name="7", what="another subscription's devices written", attack=foreign_devices),
    Row(name="8a", what="deletes of devices that never were", attack=deletes),
    Row(name="8b", what="names of 345 KB", attack=long_names),
    Row(name="8c", what="15,000 prices a body", attack=prices),
    Row(name="8d", what="one quarter hour filled, newest first", attack=samples),
    Row(name="9a", what="4,500 devices with one user id", attack=devices),
    Row(name="9b", what="2,000 inverters in slots that close", attack=closes),
    Row(name="10", what="heavy bodies of 1 MB", attack=heavy_messages),
    Row(name="11", what=f"heavy bodies, two kills, {MEMORY_MB} MB", attack=crash_loop, memory_mb=MEMORY_MB),
    Row(
        name="12a", what=f"dead letters fill {STORE_MB} MiB", attack=dead_letters, after=others_are_let_in, store=_STORE
    ),
    Row(name="12b", what=f"messages fill {STORE_MB} MiB", attack=owed, after=others_are_let_in, store=_STORE),
    Row(name="13a", what="thousands of new users", attack=new_users),
    Row(name="13b", what="a past of 23.5 h for thousands", attack=backfill),
    Row(name="14", what="a captured request again", attack=captured),
    Row(name="15", what=f"arrays of 1,000 at {RATE_LIMIT}/s", attack=rate_limit),
)

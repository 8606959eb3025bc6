"""The commands: what they print, where, and the code they end with."""

import asyncio
import base64
import contextlib
import http.server
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge import cli
from bridge.core.effects import CreateBuilding, Note
from bridge.core.messages import Facts, Quantity
from bridge.core.model import Building, Device, Sample
from bridge.core.vocabulary import DeadReason, DeviceKey, Kind
from bridge.sandbox import cloud
from bridge.sandbox.cloud import Summary
from bridge.sandbox.verify import Receiver
from bridge.store.port import Arrival, Attempt, Home, Outgoing, Return, Settlement, Versioned, Work
from bridge.store.sqlite import SqliteStore, lock
from bridge.store.sqlite.files import BUSY_TIMEOUT_S
from tests.postgres import Server

ROOT = Path(__file__).parent.parent
NOW = datetime.now(UTC)

CUSTOMER = "656730be2bc9719e6e5ed51d"

CONFIG = """
[server]
port = 0
[[subscriptions]]
id = "sub-1"
auth = "none"
[moost]
base_url = "http://127.0.0.1:9"
client_id = "abc"
client_secret = "s3cret-canary-1"
customer_id = "656730be2bc9719e6e5ed51d"
[store]
url = "sqlite:///{store}"
"""

VEHICLE = {
    "id": "v-1",
    "userId": "user-4711",
    "isOnline": True,
    "lastUpdated": "2025-06-01T10:00:00Z",
    "chargeState": {
        "stateOfCharge": 55,
        "chargeRate": 7.2,
        "chargingState": "CHARGING",
        "lastUpdated": "2025-06-01T10:00:00Z",
    },
}


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was printed
        return json.loads(self.out)


Bridge = Callable[..., Done]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


@pytest.fixture
def config(tmp_path: Path, store: Path) -> Path:
    path = tmp_path / "bridge.toml"
    path.write_text(CONFIG.format(store=store))
    return path


@pytest.fixture
def bridge(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bridge:
    """Return the command line, run in this process: fast, and seen by the coverage."""
    monkeypatch.setenv("BRIDGE_CONFIG", str(config))

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bridge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def process(*arguments: object, cwd: Path | None = None, sent: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the real command."""
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, input=sent)


def fill(store: Path, *bodies: bytes, dead: DeadReason | None = DeadReason.UNREADABLE) -> Sequence[int]:
    """Put messages into the store, as the door does."""

    async def put() -> Sequence[int]:
        keeper = SqliteStore(str(store))
        await keeper.open()
        arrivals = [
            Arrival(
                subscription="sub-1",
                topic="sub-1.vehicle.update",
                body=body,
                received=NOW + timedelta(milliseconds=number),
                dead=dead,
                detail="not JSON" if dead else "",
            )
            for number, body in enumerate(bodies)
        ]
        receipts = await keeper.accept(arrivals)
        await keeper.close()
        return [receipt.id for receipt in receipts]

    return asyncio.run(put())


def remember(store: Path) -> int:
    """Put a message into the store, and what it led to: a building with a device, a note, a call tried in vain."""
    [message] = fill(store, json.dumps(VEHICLE).encode(), dead=None)
    vehicle = Device(
        kind=Kind.VEHICLE, id="v-1", user="u", subscription="sub-1", since=NOW, stamp=NOW, facts=Facts(name="My car")
    )
    state = Building(id="home", created=True, users=("u",), devices={"vehicle:v-1": vehicle})
    call = Outgoing(call=CreateBuilding(building="home", attributes={"zip": "01067"}), cause=message)

    async def put() -> None:
        keeper = SqliteStore(str(store))
        await keeper.open()
        work = Work(
            now=NOW,
            settled=[message],
            buildings=[Versioned(state=state, version=0)],
            calls=[call],
            notes=[(message, Note(name="time_clamped", detail="11 min ahead"))],
        )
        assert not await keeper.commit(work)
        [lane] = await keeper.lease(NOW, 1, 1, timedelta(seconds=30))
        failed = Attempt(at=NOW, outcome="503", detail="try later")
        settlement = Settlement(call_id=lane.calls[0].id, attempt=failed, failed=True)
        await keeper.settle(NOW, [settlement], [], [Return(building="home", at=NOW)])
        await keeper.close()

    asyncio.run(put())
    return message


# ---- the door itself ------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    heavy = [
        "pydantic",
        "fastapi",
        "uvicorn",
        "httpx",
        "aiohttp",
        "rich",
        "structlog",
        "msgspec",
        "prometheus_client",
        "jsonschema_rs",
    ]
    code = (
        "import sys\nfrom bridge import cli\nsys.argv = ['bridge', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        f"    print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    commands = ["serve", "demo", "sandbox", "simulate", "map", "check", "buildings", "dead-letters", "explain", "store"]
    assert [] == [name for name in commands if f"\n  {name} " not in done.stdout]
    assert "[]" == done.stderr.strip()


def test_a_wrong_option_is_a_usage_error_on_stderr(bridge: Bridge) -> None:
    for arguments in (["serve", "--prot", "1"], ["explain", "x"], ["map", "topic"], ["nothing"], ["explain", "0"]):
        done = bridge(*arguments)
        assert (2, "") == (done.code, done.out), arguments
        assert "Error: " in done.err


def test_without_a_command_help_is_shown(bridge: Bridge) -> None:
    done = bridge()
    assert 2 == done.code
    assert "Usage: moost-bridge" in done.out + done.err


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    done = process("serve", cwd=tmp_path)
    assert (2, "", "bridge.toml: there is no such file\n") == (done.returncode, done.stdout, done.stderr)


def test_a_reader_that_leaves_early_sees_no_traceback(config: Path, store: Path) -> None:
    fill(store, *(b"x" * 4000 for _ in range(250)))
    command = [sys.executable, "-m", "bridge", "store", "export", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as exporting:
        assert exporting.stdout is not None
        assert exporting.stderr is not None
        exporting.stdout.read(10)
        exporting.stdout.close()
        assert b"" == exporting.stderr.read()
        assert exporting.wait(60) in (0, 1)


# ---- check, serve ---------------------------------------------------------------------------------------------------


def test_check_says_nothing_on_stderr_when_all_is_well(bridge: Bridge, config: Path) -> None:
    done = bridge("check")
    assert (0, "") == (done.code, done.err)
    assert str(config) in done.out


def test_check_and_serve_name_the_same_problems(bridge: Bridge, config: Path) -> None:
    config.write_text(config.read_text().replace("port = 0", "prot = 0").replace('"abc"', '"a b"'))
    lines = [
        "server.prot: unknown key; port may be meant",
        "moost.client_id: must be 1 to 100 letters or digits",
    ]
    for command in ("check", "serve"):
        done = bridge(command)
        assert (2, "", lines) == (done.code, done.out, done.err.splitlines())


def test_check_online_names_what_cannot_be_reached(bridge: Bridge) -> None:
    done = bridge("check", "--online")
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith("moost.base_url: ")


@pytest.mark.parametrize("rooms", ["kitchen", "receiver,kitchen", "", ","])
def test_serve_knows_its_rooms(bridge: Bridge, rooms: str) -> None:
    done = bridge("serve", "--rooms", rooms)
    assert 2 == done.code
    assert done.err.startswith("--rooms: ")


def test_serve_drains_and_ends_with_0(config: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"BRIDGE_LOGS__LEVEL": "debug", "PATH": ""},
    ) as daemon:
        assert daemon.stderr is not None
        shown = []
        for line in daemon.stderr:
            shown.append(json.loads(line))
            if shown[-1]["event"] == "serving":
                daemon.send_signal(signal.SIGTERM)
        assert 0 == daemon.wait(30)
    assert "drained" == shown[-1]["event"]
    assert "s3cret-canary-1" not in json.dumps(shown)


# ---- map ------------------------------------------------------------------------------------------------------------


def test_map_prints_the_calls_in_sending_order(bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRIDGE_CONFIG")
    (tmp_path / "message.json").write_text(json.dumps(VEHICLE))
    done = bridge("map", "acme.vehicle.update", tmp_path / "message.json")
    assert (0, "") == (done.code, done.err)
    assert [
        ("POST", "/buildings/v1"),
        ("PUT", "/buildings/user-4711/devices/v1"),
        ("POST", "/events/v1"),
    ] == [(call["method"], call["path"]) for call in done.json]
    assert {"method", "path", "body"} == set(done.json[0])


def test_map_reads_stdin_and_its_rules_need_no_secret(config: Path) -> None:
    text = config.read_text().replace("s3cret-canary-1", "").replace('auth = "none"', 'user_prefix = "p-"')
    config.write_text(text)
    done = process("map", "sub-1.vehicle.update", "-", "--config", config, sent=json.dumps(VEHICLE))
    assert 0 == done.returncode, done.stderr
    assert "p-user-4711" == json.loads(done.stdout)[0]["body"]["customerBuildingId"]


@pytest.mark.parametrize(
    ("topic", "body"), [("acme.vehicle.explode", b"{}"), ("acme.vehicle.update", b"{"), ("x", b"[]")]
)
def test_map_tells_a_dead_letter_by_its_code(bridge: Bridge, tmp_path: Path, topic: str, body: bytes) -> None:
    (tmp_path / "message.json").write_bytes(body)
    done = bridge("map", topic, tmp_path / "message.json")
    assert (3, []) == (done.code, done.json)
    assert done.err


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ((), b"\xef\xbb\xbf" + json.dumps(VEHICLE).encode()),
        ((), json.dumps([VEHICLE]).encode()),
        ((), json.dumps(json.dumps(VEHICLE)).encode()),
        (("--content-type", "application/cloudevents+json"), json.dumps({"type": "any", "data": VEHICLE}).encode()),
    ],
)
def test_map_reads_a_body_as_the_door_does(
    bridge: Bridge, tmp_path: Path, options: tuple[str, ...], body: bytes
) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(VEHICLE))
    (tmp_path / "message.json").write_bytes(body)
    expected = bridge("map", "acme.vehicle.update", tmp_path / "plain.json").json
    done = bridge("map", "acme.vehicle.update", tmp_path / "message.json", *options)
    assert (0, expected) == (done.code, done.json)


def test_a_directory_with_a_byte_order_mark_is_imported(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbfuser_id;customer_building_id\r\nu;b\r\n")
    assert 0 == bridge("buildings", "import", tmp_path / "b.csv").code


def test_what_is_printed_is_utf_8_whatever_the_terminal(config: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("user_id,customer_building_id,city\nu,b,Zürich\n", encoding="utf-8")
    assert 0 == process("buildings", "import", tmp_path / "b.csv", "--config", config).returncode
    command = [sys.executable, "-m", "bridge", "buildings", "list", "--json", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True, env={"PYTHONIOENCODING": "ascii"})
    assert "Zürich" in done.stdout.decode("utf-8")


# ---- the directory --------------------------------------------------------------------------------------------------


def test_buildings_are_imported_listed_and_shown(bridge: Bridge) -> None:
    done = bridge("buildings", "import", ROOT / "config" / "buildings.example.csv")
    assert (0, "", "4 rows read, 4 changed, 0 removed\n") == (done.code, done.out, done.err)
    done = bridge("buildings", "list", "--json")
    assert (0, "") == (done.code, done.err)
    assert ["home-1001", "home-1002-cabin", "home-1002", "home-1003"] == [
        row["building"]["customerBuildingId"] for row in done.json
    ]
    assert "home-1002-cabin" in bridge("buildings", "list").out
    [shown] = bridge("buildings", "show", "home-1001", "--json").json
    assert ("home-1001", ["user-1001"]) == (shown["building"], [row["user_id"] for row in shown["directory"]])
    assert "Dresden" in bridge("buildings", "show", "home-1001").out


def test_an_import_again_changes_nothing_and_replace_removes(bridge: Bridge, tmp_path: Path) -> None:
    sample = ROOT / "config" / "buildings.example.csv"
    bridge("buildings", "import", sample)
    assert "4 rows read, 0 changed, 0 removed\n" == bridge("buildings", "import", sample).err
    less = tmp_path / "less.csv"
    less.write_text("".join(sample.read_text().splitlines(keepends=True)[:2]))
    assert "1 rows read, 0 changed, 0 removed\n" == bridge("buildings", "import", less).err
    assert 4 == len(bridge("buildings", "list", "--json").json)
    assert "1 rows read, 0 changed, 3 removed\n" == bridge("buildings", "import", less, "--replace").err
    assert ["user-1001"] == [row["user_id"] for row in bridge("buildings", "list", "--json").json]


@pytest.mark.parametrize("content", [b"user_id,customer_building_id\nu,b b\nu2,\n", b"\xff", b""])
def test_a_wrong_file_is_named_and_changes_nothing(bridge: Bridge, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.csv").write_bytes(content)
    done = bridge("buildings", "import", tmp_path / "b.csv")
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith(str(tmp_path / "b.csv"))
    assert [] == bridge("buildings", "list", "--json").json


def test_what_is_not_there_is_said(bridge: Bridge) -> None:
    for arguments in (["buildings", "show", "b"], ["explain", "1"], ["dead-letters", "show", "1"]):
        done = bridge(*arguments)
        assert (2, "") == (done.code, done.out)
        assert done.err.startswith("there is no ")


# ---- dead letters ---------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_and_shown(bridge: Bridge, store: Path) -> None:
    fill(store, b"{", b"\xff\x1b[31m")
    done = bridge("dead-letters", "list", "--json")
    assert (0, "") == (done.code, done.err)
    assert ["unreadable", "unreadable"] == [letter["reason"] for letter in done.json]
    shown = bridge("dead-letters", "show", done.json[1]["id"], "--json").json
    assert "\\xff\x1b[31m" == shown[0]["body"]
    assert "\x1b" not in bridge("dead-letters", "show", done.json[1]["id"]).out
    assert 2 == bridge("dead-letters", "list").out.count("sub-1.vehicle.update")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--reason", "unreadable"], 3),
        (["--reason", "stuck"], 0),
        (["--subscription", "sub-1"], 3),
        (["--subscription", "sub-2"], 0),
        (["--building", "b"], 0),
        (["--since", (NOW + timedelta(days=1)).isoformat()], 0),
        (["--until", "2020-01-01"], 0),
        (["--all"], 3),
    ],
)
def test_filters_choose(bridge: Bridge, store: Path, options: list[str], count: int) -> None:
    fill(store, b"{", b"[", b"x")
    assert count == len(bridge("dead-letters", "list", "--json", *options).json)
    assert f"discard: {count} dead letters\n" == bridge("dead-letters", "discard", *options).err
    assert 3 - count == len(bridge("dead-letters", "list", "--json").json)


def test_people_see_a_hundred_and_programs_all(bridge: Bridge, store: Path) -> None:
    fill(store, *(b"{%d" % number for number in range(250)))
    done = bridge("dead-letters", "list")
    assert (101, "the first 100; --all shows the rest\n") == (len(done.out.splitlines()), done.err)
    assert 251 == len(bridge("dead-letters", "list", "--all").out.splitlines())
    assert 250 == len(bridge("dead-letters", "list", "--json").json)


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_named_letters_leave_the_list(bridge: Bridge, store: Path, verb: str) -> None:
    fill(store, b"{", b"[", b"x")
    first, second, third = (letter["id"] for letter in bridge("dead-letters", "list", "--json").json)
    done = bridge("dead-letters", verb, first, third, "--json")
    assert (0, [first, third]) == (done.code, done.json)
    assert [second] == [letter["id"] for letter in bridge("dead-letters", "list", "--json").json]


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_bare_verb_is_a_mistake(bridge: Bridge, store: Path, verb: str) -> None:
    fill(store, b"{")
    done = bridge("dead-letters", verb)
    assert (2, f"{verb}: name the ids, a filter, or --all\n") == (done.code, done.err)
    assert 1 == len(bridge("dead-letters", "list", "--json").json)


def test_a_time_must_be_one(bridge: Bridge) -> None:
    done = bridge("dead-letters", "list", "--since", "yesterday")
    assert 2 == done.code
    assert "write a time such as" in done.err


# ---- explain, store -------------------------------------------------------------------------------------------------


def test_explain_shows_the_trip_of_a_message(bridge: Bridge, store: Path) -> None:
    [waiting] = fill(store, b'{"id": 1}', dead=None)
    [dead] = fill(store, b"{")
    [trip] = bridge("explain", waiting, "--json").json
    assert (waiting, "sub-1", "pending", '{"id": 1}') == (trip["id"], trip["subscription"], trip["state"], trip["body"])
    shown = bridge("explain", dead).out
    assert "unreadable" in shown
    assert "not JSON" in shown


def test_explain_shows_what_a_message_led_to(bridge: Bridge, store: Path) -> None:
    message = remember(store)
    [trip] = bridge("explain", message, "--json").json
    assert ("settled", ["time_clamped"]) == (trip["state"], [note["name"] for note in trip["notes"]])
    [call] = trip["calls"]
    assert ("CreateBuilding", "owed") == (call["call"], call["state"])
    assert [("503", "try later")] == [(each["outcome"], each["detail"]) for each in call["attempts"]]
    shown = bridge("explain", message).out
    assert [] == [word for word in ("time_clamped", "CreateBuilding", "503", "try later", "v-1") if word not in shown]


def test_a_building_is_shown_with_its_devices(bridge: Bridge, store: Path) -> None:
    remember(store)
    [shown] = bridge("buildings", "show", "home", "--json").json
    assert (True, ["u"], []) == (shown["created"], shown["users"], shown["directory"])
    assert [("vehicle", "v-1", "My car")] == [(d["kind"], d["id"], d["name"]) for d in shown["devices"]]
    shown = bridge("buildings", "show", "home").out
    lines = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in shown.splitlines()}
    assert ("yes", "u") == (lines["created"], lines["users"])
    assert "flags" not in lines, "nothing is no line"
    [row] = [line for line in shown.splitlines() if "v-1" in line]
    assert ["no", "no"] == row.split()[-2:], "offline, disconnected"
    assert "My car" in row
    assert [] == [word for word in ("True", "False", "None", "[", "'") if word in shown], shown


def test_a_number_is_printed_with_all_its_digits(bridge: Bridge, store: Path) -> None:
    sample = Sample(at=NOW, value=12_345_678.9, seen=NOW, updated=NOW, number=1)
    meter = Device(
        kind=Kind.METER, id="m-1", user="u", subscription="sub-1", since=NOW, stamp=NOW,
        series={Quantity.COUNTER: (sample,), Quantity.POWER: (sample._replace(value=1_234_567.0),)},
    )  # fmt: skip

    async def put() -> None:
        keeper = SqliteStore(str(store))
        await keeper.open()
        state = Building(id="home", created=True, users=("u",), devices={"sub-1/meter:m-1": meter})
        homes = {DeviceKey("sub-1", Kind.METER, "m-1"): Home(building="home", user="u")}
        assert not await keeper.commit(Work(now=NOW, homes=homes, buildings=[Versioned(state=state, version=0)]))
        await keeper.close()

    asyncio.run(put())
    done = bridge("explain", "--device", "meter:m-1")
    assert 0 == done.code, done.err
    shown = done.out
    assert "12345678.9 Wh" in shown
    assert "1234567 W" in shown


def test_buildings_with_a_flag_are_listed_with_what_would_mend_them(bridge: Bridge, store: Path) -> None:
    remember(store)
    state = Building(id="other", flags=("unit-jump",), about={"unit-jump": ("s/meter:m-1",)})

    async def put() -> None:
        keeper = SqliteStore(str(store))
        await keeper.open()
        assert not await keeper.commit(Work(now=NOW, buildings=[Versioned(state=state, version=0)]))
        await keeper.close()

    asyncio.run(put())
    [found] = bridge("buildings", "list", "--flag", "unit-jump", "--json").json
    assert ("other", "unit-jump") == (found["building"], found["flag"])
    assert found["problem"].endswith("meter:m-1")
    assert '[[devices]] kind = "meter", id = "m-1", unit = "W"' in found["setting"]
    done = bridge("buildings", "list", "--flag", "unit-jump")
    assert (0, True) == (done.code, found["setting"] in done.out)
    assert [] == bridge("buildings", "list", "--flag", "left-behind", "--json").json
    done = bridge("buildings", "list", "--flag", "nonsense")
    assert 2 == done.code
    assert "the flags are ambiguous-location, ambiguous-meters" in done.err


def test_a_sound_store_passes_its_check(bridge: Bridge, store: Path) -> None:
    fill(store, b"{")
    assert [] == bridge("store", "check", "--json").json
    done = bridge("store", "check")
    assert (0, "", "no problems found\n") == (done.code, done.out, done.err)


def test_a_damaged_ledger_is_found(bridge: Bridge, store: Path) -> None:
    fill(store, b"{", b"{}")
    with sqlite3.connect(store) as direct:
        direct.execute("DELETE FROM inbox WHERE id = (SELECT max(id) FROM inbox)")
    direct.close()
    done = bridge("store", "check", "--json")
    assert 3 == done.code
    assert done.json


def test_export_gives_back_every_byte(bridge: Bridge, store: Path, tmp_path: Path) -> None:
    fill(store, b'{"name": "\xc3\xa4"}', b"\xff")
    done = bridge("store", "export")
    first, second = map(json.loads, done.out.splitlines())
    assert ('{"name": "ä"}', "/w==") == (first["body"], second["body_base64"])
    assert (0, "2 messages written\n") == (done.code, done.err)
    assert 0 == bridge("store", "export", "--output", tmp_path / "out.jsonl").code
    assert done.out == (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert "" == bridge("store", "export", "--until", "2020-01-01").out
    again = bridge("store", "export", "--output", tmp_path / "out.jsonl")
    assert (2, f"--output: {tmp_path / 'out.jsonl'} exists already\n") == (again.code, again.err)
    lost = bridge("store", "export", "--output", tmp_path / "nowhere" / "out.jsonl")
    assert (1, True) == (lost.code, "cannot be written: No such file" in lost.err)


@pytest.mark.parametrize("message", [bytes(range(256)), b"\xed\xa0\x80", b"\x00", b'{"a": "\\ud800"}', b"\n", b""])
def test_what_is_exported_is_what_came(bridge: Bridge, store: Path, message: bytes) -> None:
    fill(store, message, dead=DeadReason.UNREADABLE)
    [line] = bridge("store", "export").out.splitlines()
    row = json.loads(line)
    assert message == (row["body"].encode() if "body" in row else base64.b64decode(row["body_base64"]))


def test_a_store_that_cannot_be_used_is_a_sentence(bridge: Bridge, store: Path) -> None:
    store.write_bytes(b"this is no database, whatever its name says" * 100)
    done = bridge("buildings", "list")
    assert 1 == done.code
    assert 1 == len(done.err.splitlines())
    assert done.err.startswith("the store cannot be used: ")


def test_long_work_shows_its_progress_on_a_terminal_only(
    bridge: Bridge, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, *(b"{%d" % number for number in range(120)))
    assert "discard: 120 dead letters\n" == bridge("dead-letters", "discard", "--all").err
    fill(store, *(b"{%d" % number for number in range(120)))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("bridge.cli.common.on_terminal", lambda: True)
    done = bridge("dead-letters", "discard", "--all")
    assert "\x1b[" in done.err
    assert done.err.endswith("discard: 120 dead letters\n")
    for words, what in ((["check"], "checking"), (["export", "--output", store.with_name("out")], "exporting")):
        done = bridge("store", *words)
        assert what in done.err
        assert "" == done.out


# ---- forget ---------------------------------------------------------------------------------------------------------


def test_forget_says_what_was_erased(bridge: Bridge, store: Path) -> None:
    fill(store, json.dumps(VEHICLE).encode(), dead=None)
    fill(store, b'{"userId": "user-4711"', b'{"userId": "user-47"')
    done = bridge("forget", "user-4711", "--json")
    assert [
        {
            "user": "user-4711", "messages": 2, "calls": 0, "dead_letters": 1, "other_rows": 0, "buildings": 0,
            "shared_buildings": 0, "file_rewritten": True,
        }
    ] == done.json  # fmt: skip
    assert (0, True) == (done.code, done.err.startswith("forget: 2 messages, 0 calls, 1 dead letters, "))
    assert ["user-47"] == [word for word in ("user-4711", "user-47") if word.encode() in store.read_bytes()]
    again = bridge("forget", "user-4711")
    assert (2, "", "there is no user 'user-4711' in this store\n") == (again.code, again.out, again.err)


def test_a_large_store_beside_a_daemon_is_rewritten_only_when_asked_to(
    bridge: Bridge, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, *(b'{"userId": "user-1", "%d' % number for number in range(200)))
    fill(store, *(b'{"userId": "user-2", "%d' % number for number in range(200)))
    monkeypatch.setattr("bridge.store.sqlite.files.SMALL_BYTES", 0)
    holds = lock.Lock(store)
    holds.take()
    done = bridge("forget", "user-1", "--json")
    assert (0, False) == (done.code, done.json[0]["file_rewritten"])
    assert "`moost-bridge store compact`" in done.err
    assert 0 == bridge("store", "compact").code
    holds.release()
    assert b"user-1" not in store.read_bytes()
    assert bridge("forget", "user-2", "--json").json[0]["file_rewritten"], "no daemon has to wait"


def test_an_import_waits_for_a_store_that_others_hold_for_long(bridge: Bridge, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("user_id,customer_building_id\n" + "".join(f"u{n},b{n}\n" for n in range(250)))
    assert 0 == bridge("buildings", "list").code
    with contextlib.closing(sqlite3.connect(store, check_same_thread=False)) as con:
        con.execute("BEGIN IMMEDIATE")
        letting_go = threading.Timer(BUSY_TIMEOUT_S + 1, con.rollback)
        letting_go.start()
        done = bridge("buildings", "import", file)
        letting_go.join()
    assert (0, "250 rows read, 250 changed, 0 removed\n") == (done.code, done.err)
    file.write_text("user_id,customer_building_id\nu1,b1\nu2,b3\nu300,b300\n")
    assert "3 rows read, 2 changed, 248 removed\n" == bridge("buildings", "import", file, "--replace").err
    assert ["b1", "b3", "b300"] == [
        row["building"]["customerBuildingId"] for row in bridge("buildings", "list", "--json").json
    ]


def test_a_body_without_an_end_is_refused_as_the_door_refuses_it(bridge: Bridge) -> None:
    done = bridge("map", "sub-1.vehicle.update", "/dev/zero")
    problem = "/dev/zero: is larger than server.max_body (1,048,576 bytes): the bridge answers 413 to it\n"
    assert (2, "", problem) == (done.code, done.out, done.err)


def test_an_import_names_its_file_and_echoes_little(bridge: Bridge, tmp_path: Path) -> None:
    for source, problem in (
        ("/dev/zero", "/dev/zero: line 1: is longer than 65,536 bytes\n"),
        (tmp_path / "empty", f"{tmp_path}/empty: the file has no rows\n"),
    ):
        (tmp_path / "empty").write_text("")
        done = bridge("buildings", "import", source)
        assert (2, "", problem) == (done.code, done.out, done.err)


# ---- the two sides --------------------------------------------------------------------------------------------------


def test_a_check_in_the_wrong_folder_says_that_there_was_no_store(
    bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_STORE__URL", f"sqlite:///{tmp_path}/elsewhere.db")
    assert f"there was no store at {tmp_path}/elsewhere.db: an empty one is made\n" in bridge("store", "check").err
    assert "there was no store" not in bridge("store", "check").err


def test_forget_takes_a_hint_along_of_a_user_of_whom_all_else_has_gone(
    bridge: Bridge, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.emptied()
    schema = url.rpartition("=")[2]
    monkeypatch.setenv("BRIDGE_STORE__URL", url)
    assert 0 == bridge("dead-letters", "list").code
    server.execute("INSERT INTO belongs (device, user_id) VALUES ('boat:1', 'stranger')", schema=schema)
    assert 2 == bridge("forget", "stranger").code
    assert [] == server.execute("SELECT device FROM belongs", schema=schema)


def test_the_sandbox_says_that_its_port_is_in_use(bridge: Bridge, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = bridge("sandbox", "--port", port)
    problem = f"sandbox: 127.0.0.1:{port} or the journal cannot be used: Address already in use\n"
    assert (2, "", problem) == (done.code, done.out, done.err)
    done = bridge("sandbox", "--port", 0, "--journal", tmp_path / "none" / "journal")
    assert (2, 1) == (done.code, len(done.err.splitlines()))


@pytest.mark.parametrize("number", [2**63, 10**30])
@pytest.mark.parametrize("words", [["explain"], ["dead-letters", "show"], ["dead-letters", "retry"]])
def test_an_id_that_no_store_can_number_is_unknown_like_any_other(
    bridge: Bridge, words: list[str], number: int
) -> None:
    done = bridge(*words, number)
    assert (2, "", 1) == (done.code, done.out, len(done.err.splitlines()))
    assert str(number) in done.err


def test_a_simulation_of_which_every_message_is_refused_says_so_and_ends_with_3(bridge: Bridge) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = f"http://127.0.0.1:{server.server_address[1]}"
        done = bridge("simulate", "--target", target, "--homes", 1, "--hours", 0.5, "--secret", "whsec_c2VjcmV0")
        server.shutdown()
    assert 3 == done.code
    assert done.err.endswith("simulate: every message was refused; do subscription and secret fit the bridge?\n")


def test_simulate_names_what_is_wrong_with_its_options(bridge: Bridge, tmp_path: Path) -> None:
    done = bridge("simulate", "--target", "http://127.0.0.1:9", "--secret", "whsec_%%%")
    assert 2 == done.code
    assert done.err.startswith("--secret: ")
    truth = tmp_path / "none" / "truth.jsonl"
    done = bridge("simulate", "--target", "http://127.0.0.1:9", "--truth", truth)
    assert (1, f"simulate: {truth}: No such file or directory\n") == (done.code, done.err)
    done = bridge("simulate", "--target", "127.0.0.1:9")
    assert (2, "--target: must be an address such as http://127.0.0.1:8080\n") == (done.code, done.err)


@pytest.mark.parametrize("found", [{}, {"missing": 1}, {"wrong": 1}, {"violations": 1}])
def test_simulate_ends_with_3_if_the_comparison_finds_anything(
    bridge: Bridge, config: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, int]
) -> None:
    receivers: list[Receiver] = []

    async def simulate(*, receiver: Receiver, **_: object) -> Summary:
        receivers.append(receiver)
        return Summary(
            homes=1, hours=1, seconds=1, sent=1, accepted=1, duplicates=0, dead=0, refused=0, retried=0, **found
        )

    monkeypatch.setattr(cloud, "simulate", simulate)
    config.write_text(
        config.read_text().replace("[moost]", 'user_prefix = "a:"\n[moost]')
        + '[intervals]\nstamp = "start"\nmin_coverage = 0.5\ngrace = "60s"\nspread = "0s"\n'
    )
    given = ["simulate", "--target", "http://127.0.0.1:9", "--verify", "http://127.0.0.1:9"]
    expected = 3 if found else 0
    assert [expected, expected] == [bridge(*given).code, bridge(*given, "--config", config).code]
    assert [Receiver(), Receiver(user_prefix="a:", stamp="start", coverage=0.5, delay_s=60)] == receivers


def test_simulate_does_not_judge_a_bridge_for_which_its_homes_would_have_to_be_others(
    bridge: Bridge, config: Path
) -> None:
    text = config.read_text().replace("[moost]", 'meter_sign = "export-positive"\n[moost]')
    config.write_text(text + '[intervals]\nhold = "3h"\n')
    done = bridge("simulate", "--target", "http://127.0.0.1:9", "--config", config)
    problem = "the simulated homes are made for the default of intervals.hold, subscriptions sub-1.meter_sign"
    assert (2, f"--verify: {problem}\n") == (done.code, done.err)


def test_the_cloud_talks_to_the_bridge_and_the_bridge_to_the_sandbox(config: Path, tmp_path: Path) -> None:
    """One small run of all three commands as an operator would start them."""
    (tmp_path / "secret").write_text("s3cret-canary-1\n")
    options = ["--client-id", "abc", "--client-secret-file", tmp_path / "secret", "--customer-id", CUSTOMER]
    with running("sandbox", "--port", "0", *options) as (sandbox, url):
        config.write_text(config.read_text().replace("http://127.0.0.1:9", url))
        with running("serve", "--config", config) as (daemon, door):
            done = process("simulate", "--target", door, "--homes", 2, "--hours", 0.1, "--truth", tmp_path / "truth")
            assert 0 == done.returncode, done.stderr
            assert "accepted=" in done.stdout
            assert (tmp_path / "truth").exists()
            daemon.send_signal(signal.SIGTERM)
            assert 0 == daemon.wait(30)
        sandbox.send_signal(signal.SIGTERM)
        assert 0 == sandbox.wait(30)


@contextlib.contextmanager
def running(*arguments: object) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Run a command that serves; give its process and address."""
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        assert started.stdout is not None
        try:
            found = None
            while found is None:
                line = started.stdout.readline()
                assert line, "the process has ended"
                found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
            yield started, found[0]
        finally:
            started.kill()

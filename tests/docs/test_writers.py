"""What writes the pages reads the code rightly, and stops where somebody has to say what a thing means."""

import ast
from datetime import timedelta

import pytest
from pydantic import SecretStr

from bridge.core.mapping import EVENTS
from bridge.core.vocabulary import EVENT_TYPES, DeviceType, EventType
from docs.writers import dependencies, events, log, settings
from docs.writers.log import Line


def lines(code: str) -> list[Line]:
    return sorted(log.of_module(ast.parse(f'_log = logs.logger("worker")\n{code}'), "worker.room"))


def test_a_line_of_the_log_has_its_event_level_logger_and_fields() -> None:
    assert [Line("fell", "warning", "worker", ("how", "why"))] == lines('_log.warning("fell", how=1, why=2, **more)')


def test_a_line_may_have_one_of_two_events() -> None:
    found = lines('self._log.info("began" if on else "ended")')
    assert ["began", "ended"] == [line.event for line in found]


def test_a_logger_may_be_called_by_another_name() -> None:
    chosen = "def f():\n    tell = _log.warning if bad else _log.info\n    tell('reloaded', applied=[])\n"
    assert ["info", "warning"] == [line.level for line in lines(chosen)]
    partly = "def f():\n    tell = partial(_log.warning, 'waiting', url='')\n    tell(reason='')\n"
    assert [Line("waiting", "warning", "worker", ("reason", "url"))] == lines(partly)


def test_lines_that_are_counted_are_found_where_they_are_named() -> None:
    assert [Line("bad", "error", "worker", ("count", "what"))] == lines('Digest(_log, "bad", "what", error=True)')
    assert ["away", "back"] == [line.event for line in lines('Outage(logs.logger("store"), "away", "back")')]


def test_an_event_whose_name_cannot_be_read_stops_the_writer() -> None:
    with pytest.raises(LookupError, match="name_of"):
        lines("_log.info(name_of(x))")


def test_an_event_whose_meaning_nobody_has_told_stops_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MEANINGS", {name: text for name, text in log.MEANINGS.items() if name != "drained"})
    with pytest.raises(LookupError, match="drained"):
        log.write()


def test_the_example_file_says_what_each_key_and_section_is_for() -> None:
    example = '[server]\nport = 1   # where\nhost = "a#b" # who\n[codes]  # tables\n# [[devices]]\n# id = "x" # which\n'
    keys = {"server.port": "where", "server.host": "who", "devices.id": "which"}
    expected = {"server": "", "codes": "tables", "devices": ""} | keys
    assert expected == settings.meanings(example)


@pytest.mark.parametrize(
    ("default", "written"),
    [
        (None, ""),
        (False, "false"),
        ("a", '"a"'),
        (SecretStr(""), '""'),
        (("a", "b"), '["a", "b"]'),
        (timedelta(), '"0s"'),
        (timedelta(hours=72), '"72h"'),
        (timedelta(seconds=90), '"90s"'),
        (8080, "8080"),
        (100_000, "100_000"),
        (10 * 2**30, '"10GiB"'),
        (1.0, "1"),
        (0.9, "0.9"),
    ],
)
def test_a_default_is_written_as_the_file_would_write_it(default: object, written: str) -> None:
    assert written == settings._toml(default)


def test_every_secret_can_come_from_a_file() -> None:
    page = settings.write()
    for key in ("admin_token", "client_secret", "secrets", "proxy", "kafka_client_secret"):
        assert f"{key}_file" in page, key
    assert "url_file" in page


def test_a_package_without_a_reason_stops_the_writer() -> None:
    assert "what for" == dependencies.reason('  "a>=1", # what for\n', "a>=1")
    with pytest.raises(LookupError, match="b>=1"):
        dependencies.reason('  "b>=1",\n', "b>=1")


def test_every_event_type_that_can_leave_has_a_row_with_its_source() -> None:
    page = events.event_types()
    household = {type_ for type_, rule in EVENT_TYPES.items() if rule.sources == {DeviceType.GATEWAY}}
    assert household <= events.HOUSEHOLD.keys()
    assert set(EventType) == {row.type for row in EVENTS} | events.HOUSEHOLD.keys() | events.CODES.keys()
    rows = [line.split(" | ") for line in page.splitlines()]
    assert {(row.type.value, row.source.value) for row in EVENTS} <= {
        (row[0].strip("| `"), source.split(" (")[0]) for row in rows for source in row[1].split(", ")
    }

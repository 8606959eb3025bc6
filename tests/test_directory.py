"""The directory as a file: what is read, and what is refused."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import directory
from bridge.core.model import Residence

ROOT = Path(__file__).parent.parent
HEADER = "user_id,location_id,customer_building_id,zip,city,country_code,time_zone,lat,lon,registered_at\n"


def read(text: str | bytes) -> tuple[Residence, ...]:
    raw = text if isinstance(text, bytes) else text.encode()
    return tuple(directory.read(io.BytesIO(raw)))


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(directory.DirectoryError) as caught:
        read(text)
    return str(caught.value).splitlines()


def line(building: dict[str, Any] | None = None, **row: object) -> str:
    return json.dumps({"user_id": "u", "building": {"customerBuildingId": "b", **(building or {})}, **row})


def test_the_sample_file_is_read() -> None:
    rows = read((ROOT / "config" / "buildings.example.csv").read_text(encoding="utf-8"))
    assert ["home-1001", "home-1002", "home-1002-cabin", "home-1003"] == [row.building for row in rows]
    assert (
        Residence(
            user="user-1001",
            location=None,
            building="home-1001",
            attributes={
                "zip": "01067",
                "city": "Dresden",
                "countryCode": "DE",
                "timeZoneId": "Europe/Berlin",
                "geolocation": {"lat": 51.0504, "lon": 13.7373},
                "registrationTimestamp": 1714552200,
            },
        )
        == rows[0]
    )
    assert Residence(user="user-1003", location=None, building="home-1003") == rows[3]


@pytest.mark.parametrize(
    "text",
    [
        "user_id,customer_building_id\nu,b\n",
        "user_id;customer_building_id\r\nu;b\r\n",
        "customer_building_id , user_id\n\n b , u \n,\n",
        '\n{"user_id": "u", "building": {"customerBuildingId": "b"}}\n\n',
        '{"user_id": "u", "location_id": null, "building": {"customerBuildingId": "b", "zip": null}}',
    ],
)
def test_either_form_gives_the_same_row(text: str) -> None:
    assert (Residence(user="u", location=None, building="b"),) == read(text)


def test_what_is_listed_can_be_imported_again() -> None:
    dual = {"type": "DUAL", "minPrice": "0.2", "currency": "EUR", "dual": {"lowTariff": {"mondayStartTime": "22:00"}}}
    text = line({"settings": {"tariff": dual}, "geolocation": {"lat": 1, "lon": 2}}, location_id="x")
    [row] = read(text)
    assert dual == row.attributes["tariff"]
    assert (row,) == read(json.dumps(directory.as_row(row)))


def test_every_problem_of_a_file_is_named_at_once() -> None:
    rows = [
        ",,b1,,,,,,,",
        "u2,,,,,,,,,",
        "u3,,core-data,,,de,Berlin,91,,yesterday",
        "u4,,b 4,,,,,,,",
        "u5",
        "u6,,b6,,,,,,,",
        "u6,,b6,,,,,,,",
        "u7,,..,,,,,,,",
    ]
    assert [
        "line 2: user_id: is missing or not text",
        "line 3: customer_building_id: is missing",
        "line 4: customer_building_id: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
        'line 4: country_code: must be a two-letter code such as "DE"',
        'line 4: time_zone: must be an IANA time zone such as "Europe/Berlin"',
        "line 4: registered_at: must be a time such as 2024-05-01 or 2024-05-01T12:00:00Z",
        "line 4: lat, lon: needs lat and lon, both or none",
        "line 5: customer_building_id: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
        "line 6: has 1 cells, the header has 10",
        "line 8: the same user_id and location_id as in an earlier line",
        "line 9: customer_building_id: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
    ] == problems(HEADER + "\n".join(rows))


def test_rows_that_contradict_each_other_are_refused() -> None:
    found = problems(HEADER + "u1,,b,01067,,,,,,\nu2,,b,01069,,,,,,\nu3,,b,,,,,,,\n")
    assert ["line 3: zip: an earlier line says otherwise of building b"] == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file has no rows"),
        (HEADER, "the file has no rows"),
        ("user_id,adress\n", "line 1: unknown column 'adress'; the columns are user_id, "),
        ("user_id\nu\n", "line 1: the column customer_building_id is missing"),
        ("user_id,user_id,customer_building_id\n", "line 1: a column is named twice"),
        ('user_id,customer_building_id\nu,"b\n', "line 2: is not CSV: unexpected end of data"),
        ("{", "line 1: is not JSON: "),
        ('{"user_id": "u"}\n[]', "line 1: building: is missing or not an object"),
        ('{"user_id": 5, "building": {}}', "line 1: user_id: is missing or not text"),
        (line(location_id=5), "line 1: location_id: must be text or nothing"),
        (line(home=5), "line 1: home: unknown key"),
        (line({"profile": {}}), "line 1: profile: is not an attribute that the bridge sends"),
        (line({"city": "half \ud83d"}), "line 1: city: must be text, on one line"),
        (line({"zip": 1067}), "line 1: zip: must be text"),
        (line({"geolocation": {"lat": 1}}), "line 1: geolocation: needs lat and lon, both or none"),
        (line({"geolocation": {"lat": 91, "lon": 0}}), "line 1: geolocation: lat must be a number from -90 to 90"),
        (line({"geolocation": {"lat": 0, "lon": True}}), "line 1: geolocation: lon must be a number from -180 to 180"),
        (line({"geolocation": {"lat": float("nan"), "lon": 0}}), "line 1: geolocation: lat must be a number from"),
        (line({"registrationTimestamp": 1714552200000}), "line 1: registrationTimestamp: must be a time, or seconds"),
        (line({"registrationTimestamp": True}), "line 1: registrationTimestamp: must be a time, or seconds"),
        (line({"settings": {"x": 1}}), "line 1: settings: may hold a tariff and nothing else"),
        (line({"settings": {"tariff": {"type": "DYNAMIC"}}}), "line 1: settings: tariff.type must be SINGLE or DUAL"),
        (line({"settings": {"tariff": {"type": "SINGLE", "dual": {}}}}), "line 1: settings: tariff.dual: unknown key"),
        (line({"settings": {"tariff": {"type": "DUAL"}}}), "line 1: settings: tariff.dual needs lowTariff"),
        (line({"settings": {"tariff": {"type": "SINGLE", "minPrice": 0.3}}}), "line 1: settings: tariff.minPrice must"),
        (line({"settings": {"tariff": {"type": "SINGLE", "currency": "€"}}}), "line 1: settings: tariff.currency must"),
        (
            line({"settings": {"tariff": {"type": "DUAL", "dual": {"lowTariff": {"mondayStartTime": "24:00"}}}}}),
            "line 1: settings: tariff.dual.lowTariff.mondayStartTime must be like",
        ),
    ],
)
def test_each_mistake_is_named_with_its_line(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1714552200", 1714552200), ("2024-05-01T08:30:00Z", 1714552200), ("2024-05-01", 1714521600)],
)
def test_a_time_is_seconds_or_iso(written: str, seconds: int) -> None:
    [row] = read(f"user_id,customer_building_id,registered_at\nu,b,{written}\n")
    assert {"registrationTimestamp": seconds} == row.attributes


# ---- a file that was named by mistake -------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A pipe whose writer never stops."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - typeshed's WriteableBuffer
        some = (self.piece * (len(buffer) // len(self.piece) + 1))[: len(buffer)]
        buffer[:] = some
        self.given += len(some)
        return len(some)


ROW = b'{"user_id": "u", "building": {"customerBuildingId": "b"}}\n'


@pytest.mark.parametrize(
    ("piece", "last", "most"),
    [
        (b"\0", "line 1: is longer than 65,536 bytes", 2**18),
        (b"x", "line 1: is longer than 65,536 bytes", 2**18),
        (b"\n", "the file has more than 1,000,000 lines: the rest was not read", 2**21),
        (b"\xff\n", "line 1: is not text in UTF-8", 2**18),
        (ROW, "that is enough: the rest was not read", 2**18),
        (b"user_id,customer_building_id\n", "that is enough: the rest was not read", 2**18),
    ],
)
def test_what_never_ends_is_given_up_early(piece: bytes, last: str, most: int) -> None:
    source = Endless(piece)
    with pytest.raises(directory.DirectoryError) as caught:
        directory.read(cast("BinaryIO", io.BufferedReader(source)))
    assert last == str(caught.value).splitlines()[-1]
    assert source.given < most
    assert len(str(caught.value).splitlines()) <= directory.MOST_PROBLEMS + 1


SECRET_LINE = "root:$6$hash-of-a-canary-password$0123456789:19769:0:99999:7:::"


@pytest.mark.parametrize(
    "text",
    [
        SECRET_LINE,
        SECRET_LINE + "\n" + SECRET_LINE,
        f'{{"user_id": "u", "{SECRET_LINE}": 1, "building": {{"customerBuildingId": "b"}}}}',
        f'{{"user_id": "u", "building": {{"customerBuildingId": "b", "{SECRET_LINE}": 1}}}}',
        line({"settings": {"tariff": {"type": "SINGLE", SECRET_LINE: 1}}}),
        line({"settings": {"tariff": {"type": "DUAL", "dual": {"lowTariff": {SECRET_LINE: "00:00"}}}}}),
        line({"city": SECRET_LINE * 10, "zip": SECRET_LINE + "\n"}),
        f'{{"{SECRET_LINE}',
        "user_id,customer_building_id\nu," + SECRET_LINE,
        'user_id,customer_building_id\n"' + SECRET_LINE,
        "\x1b]0;" + SECRET_LINE,
    ],
)
def test_an_error_repeats_at_most_a_short_escaped_piece(text: str) -> None:
    told = "\n".join(problems(text))
    assert "canary" not in told
    assert told.replace("\n", "").replace("…", "").isascii()
    assert told.replace("\n", "").isprintable()


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json_is_a_problem_of_its_line(opening: str) -> None:
    deep = '{"user_id": ' + (opening * (60_000 // len(opening)))
    assert ["line 1: is not JSON that can be read: it is nested too deeply"] == problems(deep)


def test_what_is_too_long_for_a_store_is_a_problem_before_anything_is_written() -> None:
    long = "x" * 257
    assert [
        "line 1: user_id: is longer than 256 characters",
        "line 1: location_id: is longer than 256 characters",
    ] == problems(line(user_id=long, location_id=long))
    assert problems(line({"city": long}))[0].startswith("line 1: city: must be text, on one line, of at most 256")


def test_lines_end_as_on_any_system() -> None:
    rows = [HEADER.strip(), "u1,,b1,,,,,,,", '"u2",,b2,,,,,,,', "", "u3,,b3,,,,,,,"]
    for text in (*(end.join(rows) + end for end in ("\n", "\r\n", "\r")), "\n".join(rows)):
        assert ["b1", "b2", "b3"] == [row.building for row in read(text)]


@given(
    st.text()
    | st.builds(
        lambda cells: HEADER + cells,
        st.text("u,;\n\"'{}1.-"),
    )
)
def test_any_text_is_rows_or_a_sentence(text: str) -> None:
    with contextlib.suppress(directory.DirectoryError):
        assert read(text)

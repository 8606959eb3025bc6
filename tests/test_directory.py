"""The directory as a file: what is read, and what is refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import directory
from bridge.core.model import Residence

ROOT = Path(__file__).parent.parent
HEADER = "user_id,location_id,customer_building_id,zip,city,country_code,time_zone,lat,lon,registered_at\n"


def problems(text: str) -> list[str]:
    with pytest.raises(directory.DirectoryError) as caught:
        directory.read(text)
    return str(caught.value).splitlines()


def line(building: dict[str, Any] | None = None, **row: object) -> str:
    return json.dumps({"user_id": "u", "building": {"customerBuildingId": "b", **(building or {})}, **row})


def test_the_sample_file_is_read() -> None:
    rows = directory.read((ROOT / "config" / "buildings.example.csv").read_text(encoding="utf-8"))
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
    assert (Residence(user="u", location=None, building="b"),) == directory.read(text)


def test_what_is_listed_can_be_imported_again() -> None:
    dual = {"type": "DUAL", "minPrice": "0.2", "currency": "EUR", "dual": {"lowTariff": {"mondayStartTime": "22:00"}}}
    text = line({"settings": {"tariff": dual}, "geolocation": {"lat": 1, "lon": 2}}, location_id="x")
    [row] = directory.read(text)
    assert dual == row.attributes["tariff"]
    assert (row,) == directory.read(json.dumps(directory.as_row(row)))


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
        "line 3: customerBuildingId: is missing",
        "line 4: customerBuildingId: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
        'line 4: countryCode: must be a two-letter code such as "DE"',
        'line 4: timeZoneId: must be an IANA time zone such as "Europe/Berlin"',
        "line 4: registrationTimestamp: must be a time such as 2024-05-01 or 2024-05-01T12:00:00Z",
        "line 4: geolocation: needs lat and lon, both or none",
        "line 5: customerBuildingId: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
        "line 6: has 1 cells, the header has 10",
        "line 8: the same user_id and location_id as in an earlier line",
        "line 9: customerBuildingId: must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)",
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
    [row] = directory.read(f"user_id,customer_building_id,registered_at\nu,b,{written}\n")
    assert {"registrationTimestamp": seconds} == row.attributes


@given(
    st.text()
    | st.builds(
        lambda cells: HEADER + cells,
        st.text("u,;\n\"'{}1.-"),
    )
)
def test_any_text_is_rows_or_a_sentence(text: str) -> None:
    with contextlib.suppress(directory.DirectoryError):
        assert directory.read(text)

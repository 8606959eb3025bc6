"""The directory as a file: which user lives in which building, and what the operator knows of it.

Rules:
- CSV with a header line, or JSON lines `{"user_id", "location_id", "building": {MOOST's attributes}}`.
- Only `user_id` and the building's id are required; an empty cell or null says nothing.
- All problems of a file at once, one line each; a file with a problem changes nothing.
- What is not MOOST's to be told by us (id, profile, devices, …) is refused: it would be overwritten or ignored.

Source: MOOST documentation, "Common integration" (building attributes, tariff), Event schema (customerBuildingId).
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bridge.config.fields import time_zone
from bridge.core.model import Residence
from bridge.errors import BridgeError

COLUMNS: Final[Mapping[str, str]] = {
    "user_id": "",
    "location_id": "",
    "customer_building_id": "customerBuildingId",
    "zip": "zip",
    "city": "city",
    "country_code": "countryCode",
    "time_zone": "timeZoneId",
    "lat": "",
    "lon": "",
    "registered_at": "registrationTimestamp",
}
"""The columns of the CSV file, and MOOST's attribute where a column is one."""

_BUILDING_ID: Final = re.compile(r"[a-zA-Z0-9:._-]{1,100}")
_RESERVED: Final = frozenset({"core-data", ".", ".."})  # as part of a path they name something else
_TARIFFS: Final = ("SINGLE", "DUAL")  # DYNAMIC prices come from the device cloud
_PRICE: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WINDOWS: Final = frozenset(f"{day}{edge}" for day in _DAYS for edge in ("StartTime", "EndTime"))
_EARLIEST, _LATEST = 0, 10**10  # epoch seconds: a greater number is milliseconds


class DirectoryError(BridgeError):
    """A directory file that cannot be taken over; one line per problem."""


def read(text: str) -> tuple[Residence, ...]:
    """Return the rows of a directory file, CSV or JSON lines; raises DirectoryError with every problem."""
    rows: dict[tuple[str, str | None], Residence] = {}
    buildings: dict[str, dict[str, object]] = {}
    problems: list[str] = []
    for line, raw in _raw_rows(text):
        found, wrong = (None, [raw]) if isinstance(raw, str) else _residence(raw)
        if found is not None:
            if (found.user, found.location) in rows:
                wrong.append("the same user_id and location_id as in an earlier line")
            wrong += _contradictions(found, buildings)
            rows[found.user, found.location] = found
        problems += [f"line {line}: {problem}" for problem in wrong]
    if not rows and not problems:
        problems.append("the file has no rows")
    if problems:
        raise DirectoryError("\n".join(problems))
    return tuple(rows.values())


def as_row(residence: Residence) -> dict[str, object]:
    """Return a row as in JSON lines, so that what is listed can be imported again."""
    attributes = {name: value for name, value in residence.attributes.items() if name != "tariff"}
    building: dict[str, object] = {"customerBuildingId": residence.building, **attributes}
    if "tariff" in residence.attributes:
        building["settings"] = {"tariff": residence.attributes["tariff"]}
    return {"user_id": residence.user, "location_id": residence.location, "building": building}


# ---- the two forms of the file --------------------------------------------------------------------------------------


def _raw_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield line number and row in the form of JSON lines, or what is wrong with the line."""
    if text.lstrip().startswith("{"):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, _json_row(line)
    else:
        yield from _csv_rows(text)


def _json_row(line: str) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"is not JSON: {error}"
    return row if isinstance(row, dict) else "must be an object"


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                if wrong := _header(columns):
                    yield reader.line_num, wrong
                    return
            elif len(cells) != len(columns):
                yield reader.line_num, f"has {len(cells)} cells, the header has {len(columns)}"
            else:
                filled = zip(columns, (cell.strip() for cell in cells), strict=True)
                yield reader.line_num, _from_csv({name: cell for name, cell in filled if cell})
    except csv.Error as error:
        yield reader.line_num, f"is not CSV: {error}"


def _header(columns: list[str]) -> str | None:
    """Return what is wrong with the first line."""
    unknown = [name for name in columns if name not in COLUMNS]
    missing = [name for name in ("user_id", "customer_building_id") if name not in columns]
    if unknown:
        return f"unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}"
    if missing:
        return f"the column {missing[0]} is missing"
    return "a column is named twice" if len(set(columns)) < len(columns) else None


def _from_csv(cells: Mapping[str, str]) -> dict[str, Any]:
    """Return a CSV row in the form of JSON lines."""
    building: dict[str, Any] = {name: cells[column] for column, name in COLUMNS.items() if name and column in cells}
    if "lat" in cells or "lon" in cells:
        building["geolocation"] = {axis: _number(cells[axis]) for axis in ("lat", "lon") if axis in cells}
    if "registered_at" in cells and cells["registered_at"].isdecimal():
        building["registrationTimestamp"] = int(cells["registered_at"])
    return {"user_id": cells.get("user_id"), "location_id": cells.get("location_id"), "building": building}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


# ---- one row --------------------------------------------------------------------------------------------------------


def _residence(row: Mapping[str, Any]) -> tuple[Residence | None, list[str]]:
    """Return the row, or every problem that it has."""
    problems = [f"{name}: unknown key" for name in row if name not in ("user_id", "location_id", "building")]
    user, location, sheet = row.get("user_id"), row.get("location_id"), row.get("building")
    if not _is_text(user):
        problems.append("user_id: is missing or not text")
    if location is not None and not _is_text(location):
        problems.append("location_id: must be text or nothing")
    attributes, wrong = (
        _attributes(sheet) if isinstance(sheet, dict) else ({}, ["building: is missing or not an object"])
    )
    if problems or wrong:
        return None, problems + wrong
    building = str(attributes.pop("customerBuildingId"))
    if "settings" in attributes:
        attributes["tariff"] = attributes.pop("settings")
    return Residence(user=str(user), location=location, building=building, attributes=attributes), []


def _attributes(sheet: Mapping[str, Any]) -> tuple[dict[str, object], list[str]]:
    """Return MOOST's attributes as they are sent, and what is wrong with them."""
    attributes: dict[str, object] = {}
    problems = [] if sheet.get("customerBuildingId") is not None else ["customerBuildingId: is missing"]
    for name, value in sheet.items():
        check = _ATTRIBUTES.get(name)
        if check is None:
            problems.append(f"{name}: is not an attribute that the bridge sends")
        elif value is not None:
            try:
                attributes[name] = check(value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    return attributes, problems


def _contradictions(row: Residence, buildings: dict[str, dict[str, object]]) -> Iterator[str]:
    """Yield where a row contradicts an earlier one of its building: MOOST would see whichever was looked at last."""
    known = buildings.setdefault(row.building, {})
    for name, value in row.attributes.items():
        if known.setdefault(name, value) != value:
            yield f"{name}: an earlier line says otherwise of building {row.building}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _building_id(value: object) -> str:
    if not isinstance(value, str) or not _BUILDING_ID.fullmatch(value) or value in _RESERVED:
        raise ValueError("must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not _is_text(value):
        raise ValueError("must be text, on one line")
    return value.strip()


def _country(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[A-Z]{2}", value):
        raise ValueError('must be a two-letter code such as "DE"')
    return value


def _geolocation(value: object) -> dict[str, float]:
    limits = {"lat": 90, "lon": 180}
    if not isinstance(value, dict) or value.keys() != limits.keys():
        raise ValueError("needs lat and lon, both or none")
    for axis, limit in limits.items():
        number = value[axis]
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= limit:
            raise ValueError(f"{axis} must be a number from -{limit} to {limit}")
    return {axis: float(value[axis]) for axis in limits}


def _timestamp(value: object) -> int:
    """Return epoch seconds of a number or an ISO time; a time without zone is UTC."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a time such as 2024-05-01 or 2024-05-01T12:00:00Z") from None
        value = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, bool) or not isinstance(value, int) or not _EARLIEST <= value < _LATEST:
        raise ValueError("must be a time, or seconds (not milliseconds) since 1970")
    return value


def _settings(value: object) -> dict[str, object]:
    """Return the tariff of a building's settings."""
    if not isinstance(value, dict) or value.keys() != {"tariff"} or not isinstance(value["tariff"], dict):
        raise ValueError("may hold a tariff and nothing else")
    tariff: dict[str, object] = value["tariff"]
    kind = tariff.get("type")
    known = {"type", "currency", "minPrice", "maxPrice"} | ({"dual"} if kind == "DUAL" else set())
    if kind not in _TARIFFS:
        raise ValueError("tariff.type must be SINGLE or DUAL; dynamic prices come from the device cloud")
    if strange := sorted(tariff.keys() - known):
        raise ValueError(f"tariff.{strange[0]}: unknown key")
    for name in ("minPrice", "maxPrice"):
        if name in tariff and not (isinstance(tariff[name], str) and _PRICE.fullmatch(str(tariff[name]))):
            raise ValueError(f'tariff.{name} must be a price per kWh as text, such as "0.3150"')
    if "currency" in tariff and not re.fullmatch("[A-Z]{3}", str(tariff["currency"])):
        raise ValueError('tariff.currency must be a three-letter code such as "EUR"')
    if kind == "DUAL":
        _windows(tariff.get("dual"))
    return tariff


def _windows(dual: object) -> None:
    """Check the low-tariff windows of a DUAL tariff."""
    windows = dual.get("lowTariff") if isinstance(dual, dict) else None
    if not isinstance(dual, dict) or not isinstance(windows, dict) or dual.keys() != {"lowTariff"}:
        raise ValueError("tariff.dual needs lowTariff and nothing else")
    for name, clock in windows.items():
        if name not in _WINDOWS or not isinstance(clock, str) or not _TIME.fullmatch(clock):
            raise ValueError(f'tariff.dual.lowTariff.{name} must be like mondayStartTime = "22:00"')


_ATTRIBUTES: Final[Mapping[str, Callable[[object], object]]] = {
    "customerBuildingId": _building_id,
    "zip": _text,
    "city": _text,
    "countryCode": _country,
    "timeZoneId": time_zone,
    "geolocation": _geolocation,
    "registrationTimestamp": _timestamp,
    "settings": _settings,
}

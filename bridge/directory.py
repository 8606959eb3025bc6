"""The directory as a file: which user lives in which building, and what the operator knows of it.

Rules:
- CSV with a header line, or JSON lines `{"user_id", "location_id", "building": {MOOST's attributes}}`.
- Only `user_id` and the building's id are required; an empty cell or null says nothing.
- All problems of a file at once, one line each, by the names that the file uses; a file with a problem changes nothing.
- A file may be named by mistake: what is read of it is bounded, and an error repeats at most a few characters of it.
- What is not MOOST's to be told by us (id, profile, devices, …) is refused: it would be overwritten or ignored.

Source: MOOST documentation, "Common integration" (building attributes, tariff), Event schema (customerBuildingId).
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, BinaryIO, Final

from bridge.config.fields import time_zone
from bridge.core.model import Residence
from bridge.errors import BridgeError
from bridge.files import text_of

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

_COLUMN_OF: Final = {attribute: column for column, attribute in COLUMNS.items() if attribute}

MOST_LINE: Final = 64 * 2**10
"""Bytes of one row: a sheet with a tariff of two prices for seven days has some 2 KB."""

MOST_BYTES: Final = 256 * 2**20
MOST_LINES: Final = 1_000_000
MOST_PROBLEMS: Final = 100  # told at a time
MOST_TEXT: Final = 256  # characters of an id or another text, as of an id in a message
MOST_SHOWN: Final = 20  # characters of what was read that an error repeats

_ENDS: Final = re.compile("\r\n|\r|\n")
_BUILDING_ID: Final = re.compile(r"[a-zA-Z0-9:._-]{1,100}")
_RESERVED: Final = frozenset({"core-data", ".", ".."})  # as part of a path they name something else
_TARIFFS: Final = ("SINGLE", "DUAL")  # DYNAMIC prices come from the device cloud
_PRICE: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WINDOWS: Final = frozenset(f"{day}{edge}" for day in _DAYS for edge in ("StartTime", "EndTime"))
_EARLIEST, _LATEST = 0, 10**10  # epoch seconds: a greater number is milliseconds


class DirectoryError(BridgeError):
    """A directory file that cannot be taken over; one line per problem."""


class Rows:
    """The rows of a sound file. Its lines are kept, and read again each time that the rows are gone through."""

    def __init__(self, form: "_Csv | _JsonLines") -> None:
        """Begin without rows."""
        self._form = form
        self._lines: list[bytes] = []
        self._keys: set[bytes] = set()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._lines)

    def __iter__(self) -> Iterator[Residence]:
        """Yield the rows in the order of the file."""
        for line in self._lines:
            raw = self._form.row(line.decode())
            found = None if raw is None or isinstance(raw, str) else _residence(raw)[0]
            if found is not None:
                yield found

    def __contains__(self, key: tuple[str, str | None]) -> bool:
        """Return whether there is a row of a user and a location."""
        return _digest(*key) in self._keys

    def add(self, row: Residence, line: str | None) -> bool:
        """Take a row in; return whether its user and location are new. Without its line the row is only known."""
        key = _digest(row.user, row.location)
        new = key not in self._keys
        self._keys.add(key)
        if line is not None:
            self._lines.append(line.encode())
        return new


def read(stream: BinaryIO) -> Rows:
    """Return the rows of a directory file, CSV or JSON lines; raises DirectoryError with every problem.

    What is read may be anything, and without an end: a line, the whole, and the problems told are bounded.
    """
    problems: list[str] = []
    rows: Rows | None = None
    try:
        rows = _gathered(_lines(stream), problems)
    except _UnreadableError as error:
        problems.append(str(error))
    if problems:
        raise DirectoryError("\n".join(problems))
    if not rows:
        raise DirectoryError("the file has no rows")
    return rows


def _gathered(lines: Iterator[tuple[int, str]], problems: list[str]) -> Rows | None:
    """Return the rows of lines, and add what is wrong with them to the problems; raises _UnreadableError."""
    buildings: dict[str, bytes] = {}  # building -> what its rows say of it so far, as JSON
    first = next(lines, None)
    if first is None:
        return None
    is_json = first[1].lstrip().startswith("{")
    form = _JsonLines() if is_json else _Csv(first[1])
    if is_json:
        lines = chain([first], lines)
    rows = Rows(form)
    for number, text in lines:
        raw = form.row(text)
        if raw is None:
            continue
        found, wrong = (None, [raw]) if isinstance(raw, str) else _residence(raw)
        if found is not None:
            wrong += _contradictions(found, buildings)
            if not rows.add(found, None if problems or wrong else text):
                wrong.insert(0, "the same user_id and location_id as in an earlier line")
        problems += [f"line {number}: {form.named(problem)}" for problem in wrong]
        if len(problems) > MOST_PROBLEMS:
            problems[MOST_PROBLEMS:] = ["that is enough: the rest was not read"]
            break
    return rows


def as_row(residence: Residence) -> dict[str, object]:
    """Return a row as in JSON lines, so that what is listed can be imported again."""
    attributes = {name: value for name, value in residence.attributes.items() if name != "tariff"}
    building: dict[str, object] = {"customerBuildingId": residence.building, **attributes}
    if "tariff" in residence.attributes:
        building["settings"] = {"tariff": residence.attributes["tariff"]}
    return {"user_id": residence.user, "location_id": residence.location, "building": building}


# ---- the two forms of the file --------------------------------------------------------------------------------------


class _UnreadableError(Exception):
    """Nothing more of the file can be read."""


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank; raises _UnreadableError."""
    number = size = 0
    while raw := stream.readline(MOST_LINE + 1):
        size += len(raw)
        if len(raw) > MOST_LINE:
            raise _UnreadableError(f"line {number + 1}: is longer than {MOST_LINE:,} bytes")
        if size > MOST_BYTES:
            raise _UnreadableError(f"the file is larger than {MOST_BYTES // 2**20} MiB: the rest was not read")
        try:
            text = raw.decode() if number else text_of(raw)
        except UnicodeDecodeError:
            raise _UnreadableError(f"line {number + 1}: is not text in UTF-8") from None
        for part in _ENDS.split(text.removesuffix("\n").removesuffix("\r")):
            number += 1
            if number > MOST_LINES:
                raise _UnreadableError(f"the file has more than {MOST_LINES:,} lines: the rest was not read")
            if part.strip():
                yield number, part


class _JsonLines:
    """An object a line."""

    def row(self, line: str) -> Mapping[str, Any] | str | None:
        """Return the row of a line, or what is wrong with it."""
        try:
            row = json.loads(line)
        except RecursionError:
            return "is not JSON that can be read: it is nested too deeply"
        except ValueError as error:
            return f"is not JSON: {error}"
        return row if isinstance(row, dict) else "must be an object"

    def named(self, problem: str) -> str:
        """Return a problem in the words of the file."""
        return problem


class _Csv:
    """A header and cells."""

    def __init__(self, header: str) -> None:
        """Read the header; raises _UnreadableError where it is none."""
        self._delimiter = ";" if ";" in header and "," not in header else ","
        cells = self._cells(header)
        self._columns = [cell.strip() for cell in cells] if not isinstance(cells, str) else []
        if wrong := cells if isinstance(cells, str) else _header(self._columns):
            raise _UnreadableError(f"line 1: {wrong}")

    def row(self, line: str) -> Mapping[str, Any] | str | None:
        """Return the row of a line in the form of JSON lines, or what is wrong with it; None = its cells are empty."""
        cells = self._cells(line)
        if isinstance(cells, str):
            return cells
        if not any(cell.strip() for cell in cells):
            return None
        if len(cells) != len(self._columns):
            return f"has {len(cells)} cells, the header has {len(self._columns)}"
        filled = zip(self._columns, (cell.strip() for cell in cells), strict=True)
        return _from_csv({name: cell for name, cell in filled if cell})

    def named(self, problem: str) -> str:
        """Return a problem in the words of the file: by the name of the column."""
        name, separator, what = problem.partition(": ")
        if name == "geolocation":
            axis, _, rest = what.partition(" ")
            return f"{axis}: {rest}" if axis in ("lat", "lon") else f"lat, lon: {what}"
        return _COLUMN_OF.get(name, name) + separator + what

    def _cells(self, line: str) -> list[str] | str:
        try:
            return next(csv.reader([line], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            return f"is not CSV: {error}"


def _header(columns: list[str]) -> str | None:
    """Return what is wrong with the first line."""
    unknown = [name for name in columns if name not in COLUMNS]
    missing = [name for name in ("user_id", "customer_building_id") if name not in columns]
    if unknown:
        return f"unknown column {_piece(unknown[0])}; the columns are {', '.join(COLUMNS)}"
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


def _digest(user: str, location: str | None) -> bytes:
    return hashlib.blake2b(json.dumps([user, location]).encode(), digest_size=16).digest()


def _piece(text: object) -> str:
    """Return as much of what was read as an error may repeat: it may be anything, a secret too."""
    shown = ascii(str(text)[:MOST_SHOWN])
    return shown if len(str(text)) <= MOST_SHOWN else shown[:-1] + "…'"


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


# ---- one row --------------------------------------------------------------------------------------------------------


def _residence(row: Mapping[str, Any]) -> tuple[Residence | None, list[str]]:
    """Return the row, or every problem that it has."""
    problems = [f"{_word(name)}: unknown key" for name in row if name not in ("user_id", "location_id", "building")]
    user, location, sheet = row.get("user_id"), row.get("location_id"), row.get("building")
    if not _is_text(user):
        problems.append("user_id: is missing or not text")
    if location is not None and not _is_text(location):
        problems.append("location_id: must be text or nothing")
    longest = {name: value for name, value in (("user_id", user), ("location_id", location)) if _is_long(value)}
    problems += [f"{name}: is longer than {MOST_TEXT} characters" for name in longest]
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
            problems.append(f"{_word(name)}: is not an attribute that the bridge sends")
        elif value is not None:
            try:
                attributes[name] = check(value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    return attributes, problems


def _contradictions(row: Residence, buildings: dict[str, bytes]) -> list[str]:
    """Return where a row contradicts an earlier one of its building: MOOST would see whichever was looked at last."""
    earlier = buildings.get(row.building)
    known: dict[str, object] = {} if earlier is None else json.loads(earlier)
    wrong = [name for name, value in row.attributes.items() if known.get(name, value) != value]
    buildings[row.building] = json.dumps({**row.attributes, **known}).encode()
    return [f"{name}: an earlier line says otherwise of building {row.building}" for name in wrong]


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > MOST_TEXT


def _word(name: str) -> str:
    """Return a name as it was written, where it is one."""
    return name if re.fullmatch(r"\w{1,30}", name, re.ASCII) else _piece(name)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _building_id(value: object) -> str:
    if not isinstance(value, str) or not _BUILDING_ID.fullmatch(value) or value in _RESERVED:
        raise ValueError("must be 1 to 100 letters, digits or : . _ - (and not core-data, . or ..)")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not _is_text(value) or _is_long(value):
        raise ValueError(f"must be text, on one line, of at most {MOST_TEXT} characters")
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
        raise ValueError(f"tariff.{_word(strange[0])}: unknown key")
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
            raise ValueError(f'tariff.dual.lowTariff.{_word(name)} must be like mondayStartTime = "22:00"')


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

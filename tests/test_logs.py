"""How the bridge speaks, and what it never says."""

import base64
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import logs

SECRET = 'canary/+"secret" ä'


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers.clear()  # pytest brings its own for each phase
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert not captured.out, "stdout belongs to what a program reads"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_one_json_object_with_what_is_looked_for_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    logs.logger("room").info("circuit_opened", failures=3, text="two\nlines")
    [line] = lines(capsys)
    assert ["timestamp", "level", "event", "logger", "failures", "text"] == list(line)
    assert ("info", "circuit_opened", "room", 3) == (line["level"], line["event"], line["logger"], line["failures"])
    assert str(line["timestamp"]).endswith("Z")


def test_only_lines_from_the_level_on_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", json=True)
    for name in ("room", "httpx", "uvicorn.error"):
        logs.logger(name).info("not_said")
        logs.logger(name).warning("said")
    assert ["said"] * 3 == [line["event"] for line in lines(capsys)]


def test_libraries_speak_through_the_same_handler_but_not_per_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", json=True)
    logging.getLogger("httpx").info("HTTP Request: GET http://x/?clientSecret=s3cret")
    logging.getLogger("uvicorn.access").info("127.0.0.1 POST /webhooks 202")
    logging.getLogger("aiohttp.client").error("Unclosed %s", "session")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    first, second = lines(capsys)
    assert ("Unclosed session", "aiohttp.client", "error") == (first["event"], first["logger"], first["level"])
    assert "py.warnings" == second["logger"]


def test_configure_again_replaces_the_handler(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=False)
    logs.configure("info", json=True, secrets=["new-secret"])
    logs.logger("room").info("reloaded", value="new-secret")
    assert [logs.MASK] == [line["value"] for line in lines(capsys)]


def fail(argument: str) -> None:
    hidden = f"local {argument}"
    raise RuntimeError(hidden[:5])


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_places_and_no_local_variable(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    logs.configure("debug", as_json)
    try:
        fail(f"household-{4711}")  # the line of a call is shown, its values are not
    except RuntimeError:
        logs.logger("room").exception("room_failed")
        logging.getLogger("library").exception("failed too")
    shown = capsys.readouterr().err
    assert 2 == shown.count("RuntimeError: local")
    assert 2 == shown.count("in fail")
    assert "household-4711" not in shown


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps(SECRET),
        repr(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
    ],
)
def test_a_known_secret_is_found_wherever_and_however_it_is_written(
    capsys: pytest.CaptureFixture[str], form: str, *, as_json: bool
) -> None:
    logs.configure("debug", as_json, [SECRET])
    logs.logger("room").info(f"event {form}", value=form, nested={"deep": [form, {form: 1}]}, key=form)
    logging.getLogger("library").warning("a %s in %r", form, {"x": form})
    logs.logger("room").error("failed", exc_info=ValueError(form))
    shown = capsys.readouterr().err
    assert logs.MASK in shown
    assert "canary" not in shown
    assert form.strip("'\"") not in shown
    if as_json:
        for line in shown.splitlines():
            json.loads(line)


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJjdXN0b21lcklkIjoiMSJ9.c2lnbmF0dXJl-x_y"


@pytest.mark.parametrize(
    "text",
    [
        "GET https://api.moost.io/auth/token/v1?clientId=abc&clientSecret=canary-1 failed",
        "{'clientSecret': 'canary-1', 'x': 1}",
        '{"client_secret": "canary-1"}',
        "ClientSecret = canary-1",
        "Authorization: Bearer canary-1-token",
        "{'authorization': 'Basic Y2FuYXJ5OmNhbmFyeQ==', 'canary': 0}".replace("'canary': 0", "'x': 0"),
        "bearer canary-1.token~x",
        "secrets = whsec_canary+/=",
        f"token {JWT} of canary".replace(" of canary", ""),
        "postgresql://user:canary-1@db/bridge",
        "https://user:canary-1@host/path",
        "password=canary-1; user=x",
        '{"access_token":"canary-1","token_type":"Bearer"}',
    ],
)
def test_what_looks_like_a_credential_is_masked_though_nobody_named_it(text: str) -> None:
    for written in (text, json.dumps(text)[1:-1]):
        shown = logs.Redaction().text(written)
        assert logs.MASK in shown
        assert not [leak for leak in ("canary", "Y2FuYXJ5", JWT, JWT.partition(".")[2]) if leak in shown], shown


@pytest.mark.parametrize(
    "text",
    [
        "serving http://127.0.0.1:8080 with basic settings",
        "the token ends in 3600 s; clientSecret was refused",
        "GET /auth/token/v1?clientId=abc",
        "user:name at 12:00:01",
        "",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert text == logs.Redaction(["s3cret", "abc"[:3]]).text(text)


@given(secret=st.text(min_size=4).filter(str.isprintable), around=st.text())
def test_no_known_secret_survives(secret: str, around: str) -> None:
    shown = logs.Redaction([secret]).text(f"{around}{secret}{around}")
    assert secret not in shown.replace(logs.MASK, "")


@example(["0000"], "\0")  # within an escape
@example(["abc\\"], 'abc"')  # its end within one
@example(["0000"], "\\u0000")  # that is no escape
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=4), max_size=3), st.text())
def test_a_json_line_stays_json_whatever_the_secrets(secrets: list[str], value: str) -> None:
    line = json.dumps({"value": value, "list": secrets}, ensure_ascii=False)
    keys = {"value", "list", "null", "true"}
    if not any(form in text for form in secrets for text in ('{"value": ', '", "list": [', *keys)):
        json.loads(logs.Redaction(secrets).text(line))


def test_on_a_terminal_a_line_is_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure("info", json=False)
    logs.logger("room").info("circuit_opened", failures=3)
    shown = capsys.readouterr().err
    assert "circuit_opened" in shown
    assert "\x1b[" in shown

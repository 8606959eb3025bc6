"""The image's HEALTHCHECK asks where the daemon listens, wherever its port was set."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bridge import probe
from tests.life.stage import bridged

ROOT: Final = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("environ", "file", "expected"),
    [
        ({}, None, ("127.0.0.1", 8080)),
        ({"BRIDGE_SERVER__HOST": "0.0.0.0"}, None, ("127.0.0.1", 8080)),
        ({"BRIDGE_SERVER__HOST": "::"}, None, ("::1", 8080)),
        ({"BRIDGE_SERVER__HOST": "0.0.0.0"}, "[server]\nport = 9191\n", ("127.0.0.1", 9191)),
        ({"BRIDGE_SERVER__PORT": "7000"}, "[server]\nport = 9191\n", ("127.0.0.1", 7000)),
        ({}, '\ufeff[server]\nhost = "10.1.2.3"\n', ("10.1.2.3", 8080)),
        ({}, "[moost]\n", ("127.0.0.1", 8080)),
    ],
)
def test_the_address_is_the_daemon_s(
    environ: dict[str, str], file: str | None, expected: tuple[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "bridge.toml"
    if file is not None:
        path.write_text(file, encoding="utf-8")
    assert expected == probe.address({**environ, "BRIDGE_CONFIG": str(path)})


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_the_file_that_the_daemon_was_told_goes_before_the_image_s(form: str, tmp_path: Path) -> None:
    for name, port in (("image", 1111), ("mounted", 2222)):
        (tmp_path / name).write_text(f"[server]\nport = {port}\n")
    command = ["moost-bridge", "serve", *form.format(tmp_path / "mounted").split(), ""]
    assert ("127.0.0.1", 2222) == probe.address({"BRIDGE_CONFIG": str(tmp_path / "image")}, command)


def _probed(**environ: object) -> "subprocess.CompletedProcess[str]":
    command = _healthcheck()
    return subprocess.run(
        [sys.executable, *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: str(value) for name, value in environ.items()},
    )


def _healthcheck() -> list[str]:
    """Return the command of the image."""
    found = re.search(r"HEALTHCHECK .*\\\n\s+CMD \[(.*)\]", (ROOT / "Dockerfile").read_text())
    assert found
    return [word.strip().strip('"') for word in found[1].split(",")]


def test_a_daemon_with_its_port_in_a_mounted_file_is_healthy(tmp_path: Path) -> None:
    with bridged(tmp_path, "http://127.0.0.1:9") as bridge:
        bridge.start()
        mounted = tmp_path / "mounted.toml"
        mounted.write_text(f"[server]\nport = {bridge.url.rpartition(':')[2]}\n")
        assert (0, "is answered") == _said(_probed(BRIDGE_CONFIG=mounted, BRIDGE_SERVER__HOST="0.0.0.0"))
        bridge.kill()
        assert 1 == _probed(BRIDGE_CONFIG=mounted).returncode


def _said(done: "subprocess.CompletedProcess[str]") -> tuple[int, str]:
    assert "" == done.stderr
    return done.returncode, done.stdout.strip()[-len("is answered") :]


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "bridge.toml"
    broken.write_text("[server\n")
    done = _probed(BRIDGE_CONFIG=broken)
    assert (1, "") == (done.returncode, done.stderr)
    assert "TOMLDecodeError" in done.stdout


def test_it_costs_little_enough_to_be_asked_every_ten_seconds() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; import bridge.probe; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    assert set() == {"pydantic", "typer", "httpx", "aiohttp", "bridge.config"} & set(loaded)

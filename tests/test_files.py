"""A byte order mark before a file of ours is passed over, whatever the file is for."""

import base64
import io
from pathlib import Path

import pytest

from bridge import config, directory, files
from bridge.errors import ConfigErrors

MARK = b"\xef\xbb\xbf"
WHSEC = "whsec_" + base64.b64encode(b"a webhook secret of 24 b").decode()
ROW = b"user_id,customer_building_id\r\nu,b\r\n"
LINE = b'{"user_id": "u", "building": {"customerBuildingId": "b"}}\n'


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def settings(folder: Path, lines: str, mark: bytes = MARK) -> config.Settings:
    text = f'[[subscriptions]]\r\nid = "s"\r\n{lines}\r\n[moost]\r\nclient_id = "a"\r\ncustomer_id = "{"6" * 24}"\r\n'
    written(folder, "client", MARK + b"s3cret_value-1\r\n")
    text += f'client_secret_file = "{folder}/client"\r\n'
    return config.load(written(folder, "bridge.toml", mark + text.encode()), environ={})


def test_a_configuration_and_its_secrets_may_begin_with_the_mark(tmp_path: Path) -> None:
    loaded = settings(tmp_path, f'secrets = ["{WHSEC}"]')
    assert "s3cret_value-1" == loaded.moost.client_secret.get_secret_value()


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ('auth = "hmac"\nheader = "x-sig"', ["correct-horse-battery-staple", "an older one"]),
        ('auth = "basic"', ["me:password"]),
        ('auth = "bearer"', ["correct-horse-battery-staple"]),
        ("", [WHSEC]),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n", ""])
def test_the_mark_is_no_part_of_the_first_secret(tmp_path: Path, auth: str, secrets: list[str], end: str) -> None:
    written(tmp_path, "secrets", MARK + ((end or "\n").join(secrets) + end).encode())
    loaded = settings(tmp_path, f'{auth}\nsecrets_file = "{tmp_path}/secrets"')
    assert secrets == [secret.get_secret_value() for secret in loaded.subscriptions[0].secrets]


def test_a_second_mark_belongs_to_the_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors):
        settings(tmp_path, f'secrets = ["{WHSEC}"]', mark=MARK + MARK)
    assert "\ufefftext" == files.text_of(MARK + MARK + b"text")


@pytest.mark.parametrize("content", [ROW, LINE])
def test_a_directory_may_begin_with_the_mark(content: bytes) -> None:
    plain, marked = (tuple(directory.read(io.BytesIO(raw))) for raw in (content, MARK + content))
    assert plain == marked


def test_only_utf_8_has_a_mark_that_is_passed_over() -> None:
    with pytest.raises(UnicodeDecodeError):
        files.text_of("text".encode("utf-16"))

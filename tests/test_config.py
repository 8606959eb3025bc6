"""What an operator writes, and what the bridge answers: settings, layers, problems."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import config
from bridge.config import Auth, Settings, database, fields
from bridge.core.rules import MeterRule, PowerUnit, Role, Rules, SubscriptionRule
from bridge.core.vocabulary import DeviceType, EventType, Kind
from bridge.errors import ConfigErrors

ROOT = Path(__file__).parent.parent
WHSEC = "whsec_" + base64.b64encode(b"a webhook secret of 24 b").decode()

GOOD = f"""
[[subscriptions]]
id = "sub-1"
secrets = ["{WHSEC}"]
[moost]
client_id = "abc"
client_secret = "s3cret_value-1"
customer_id = "656730be2bc9719e6e5ed51d"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "bridge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str = GOOD, **environ: str) -> Settings:
    return config.load(write(folder, text), environ=environ)


def problems(folder: Path, text: str = GOOD, **environ: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, text, **environ)
    return list(caught.value.problems)


def subscription(lines: str, host: str = "127.0.0.1") -> str:
    """Return a sound file but for the lines of its one subscription."""
    moost = GOOD.partition("[moost]")[2]
    return f'[server]\nhost = "{host}"\n[[subscriptions]]\nid = "s"\n{lines}\n[moost]{moost}'


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (".", "{path}: is a folder; name the file in it, such as {path}/bridge.toml"),
        ("nowhere.toml", "{path}: there is no such file"),
        ("bridge.toml/x", "{path}: there is no such file"),
        ("/dev/null", "/dev/null: is no ordinary file, and SIGHUP could not read it again"),
        ("deep.toml", "{path}: is not TOML: it is nested too deeply"),
        ("large.toml", "{path}: cannot be read: it is larger than 1 MiB"),
    ],
)
def test_what_is_no_configuration_file_is_named_for_what_it_is(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "bridge.toml").write_text(GOOD)
    (tmp_path / "deep.toml").write_text("x = " + "[" * 50_000)
    (tmp_path / "large.toml").write_text("#" * (2**20 + 1))
    path = tmp_path / name
    with pytest.raises(ConfigErrors) as caught:
        config.load(path)
    assert [problem.format(path=path)] == list(caught.value.problems)


def test_a_secret_file_without_an_end_is_a_problem_among_others(tmp_path: Path) -> None:
    text = GOOD.replace("client_secret =", "client_secret_file = '/dev/zero' #")
    found = problems(tmp_path, text, BRIDGE_DEVICES="[" * 50_000)
    assert [
        "devices: must be JSON (from BRIDGE_DEVICES)",
        "moost.client_secret: client_secret_file '/dev/zero' cannot be read: it is larger than 1 MiB",
    ] == found


def test_a_bound_is_told_with_all_its_digits(tmp_path: Path) -> None:
    assert ["server.max_body: must be at most 67108864 (from BRIDGE_SERVER__MAX_BODY)"] == problems(
        tmp_path, BRIDGE_SERVER__MAX_BODY="1GiB"
    )


# ---- the file -------------------------------------------------------------------------------------------------------


def test_the_sample_file_holds_every_setting_at_its_default() -> None:
    path = ROOT / "config" / "bridge.toml"
    loaded = config.load(path, serving=False, environ={})
    assert Settings() == loaded.model_copy(update={"subscriptions": ()})
    [sample] = loaded.subscriptions
    assert config.Subscription(id="sub-1") == sample
    text = path.read_text(encoding="utf-8")
    missing = [
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
        if f"\n{key} = " not in text and f"\n# {key} = " not in text
    ]
    for model in (config.Subscription, config.DeviceException):
        missing += [key for key in model.model_fields if f"\n{key} = " not in text and f"\n# {key} = " not in text]
    assert [] == missing


def test_the_sample_file_lacks_only_credentials_for_serving() -> None:
    with pytest.raises(ConfigErrors) as caught:
        config.load(ROOT / "config" / "bridge.toml", environ={})
    named = ["subscriptions.0.secrets", "moost.client_id", "moost.client_secret", "moost.customer_id"]
    assert named == [line.partition(":")[0] for line in caught.value.problems]


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"none\.toml: there is no such file"):
        config.load(tmp_path / "none.toml", environ={})


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that exists and cannot be read, by anybody")
def test_a_file_that_cannot_be_read_is_one_problem() -> None:
    with pytest.raises(ConfigErrors, match="cannot be read: Input/output error"):
        config.load("/proc/self/mem", environ={})


@pytest.mark.parametrize("content", [b"a = [", b'a = "\xff"', b"a = 1\na = 2\n"])
def test_a_file_that_is_not_toml_is_one_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bridge.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        config.load(path, environ={})
    assert 1 == len(caught.value.problems)
    assert caught.value.problems[0].startswith(f"{path}: ")


def test_five_mistakes_are_five_lines_from_the_real_process(tmp_path: Path) -> None:
    text = """
[server]
prot = 8081
drain_timeout = "20"
host = "0.0.0.0"
[[subscriptions]]
id = "sub-1"
auth = "none"
[moost]
client_id = "abc"
client_secret = "s3cret with spaces"
customer_id = "656730be"
"""
    command = [sys.executable, "-m", "bridge", "check", "--config", str(write(tmp_path, text))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    named = ["server.drain_timeout", "server.prot", "subscriptions.0.auth", "moost.client_secret", "moost.customer_id"]
    assert named == [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert (2, "") == (done.returncode, done.stdout)
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("[servr]\nport = 1", "servr"),
        ("[server]\nprot = 1", "server.prot"),
        ("[[devices]]\nkind = 'meter'\nid = 'x'\nrolle = 'grid'", "devices.0.rolle"),
    ],
)
def test_an_unknown_key_is_named_with_what_may_be_meant(tmp_path: Path, line: str, key: str) -> None:
    [problem] = problems(tmp_path, GOOD + line)
    assert problem.startswith(f"{key}: unknown key; ")
    assert problem.endswith("may be meant")


def test_a_wrong_value_does_not_hide_its_neighbours(tmp_path: Path) -> None:
    found = problems(tmp_path, subscription('auth = "hmac"\nrate_limit = -1\nsecrets = [1, 2]'))
    assert [
        "subscriptions.0.header",
        "subscriptions.0.rate_limit",
        "subscriptions.0.secrets.0",
        "subscriptions.0.secrets.1",
    ] == [line.partition(":")[0] for line in found]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[server]\nport = 70000", "server.port: must be at most 65535"),
        ("[server]\nport = 'x'", "server.port: must be a whole number"),
        ("[server]\nhost = ''", "server.host: must have a length of at least 1"),
        ("[server]\nhost = 1", "server.host: must be text"),
        ("[server]\nmax_body = '1 furlong'", "server.max_body: must be a number of bytes or a size"),
        ("[server]\ndrain_timeout = '0s'", "server.drain_timeout: must be longer than zero"),
        ("[server]\ntopic_headers = 'x'", "server.topic_headers: must be a list"),
        ("[server]\ntopic_headers = ['a b']", "server.topic_headers.0: must be the name of an HTTP header"),
        ("[server]\ntrusted_proxies = ['10.0.0.1/8']", 'server.trusted_proxies.0: has bits behind its prefix; "10.0'),
        ("[server]\ntrusted_proxies = ['here']", "server.trusted_proxies.0: must be a network"),
        ("server = 1", "server: must be a table"),
        ("subscriptions = 1", "subscriptions: must be a list"),
        ("subscriptions = [1]", "subscriptions.0: must be a table"),
        ("[buildings]\nunknown = 'x'", "buildings.unknown: must be one of 'create', 'park'"),
        ("[buildings]\ndefault_time_zone = 'Berlin'", "buildings.default_time_zone: must be an IANA time zone"),
        ("[buildings]\ndefault_country = 'de'", "buildings.default_country: must be a two-letter country code"),
        ("[intervals]\nmin_coverage = 0", "intervals.min_coverage: must be greater than 0"),
        ("[intervals]\nmin_coverage = 1.5", "intervals.min_coverage: must be at most 1"),
        ("[intervals]\nmin_coverage = 'much'", "intervals.min_coverage: must be a number"),
        ("[intervals]\ngrace = '15m'", "intervals.grace: must be shorter than a slot"),
        ("[intervals]\nspread = '1h'", "intervals.spread: must be shorter than a slot"),
        ("[intervals]\nhold = '30m'", "intervals.hold_active: must not be longer than hold"),
        ("[intervals]\nmax_backfill = '1m'", "intervals.max_backfill: must be at least a slot"),
        ("[store]\nurl = 'mysql://x'", 'store.url: must be "sqlite:///FILE"'),
        ("[store]\nurl = 'postgresql://u:pw@h'", "store.url: names no database"),
        ("[store]\nurl = 'postgresql:///d'", "store.url: names no host"),
        ("[store]\nurl = 'postgresql://u:pa/ss@h:5432/d'", "store.url: must be postgresql://USER:PASSWORD@HOST"),
        ("[store]\nurl = 'postgresql://u:pa[ss@h/d'", "store.url: must be postgresql://USER:PASSWORD@HOST"),
        ("[store]\nurl = 'postgresql://u:p@h:99999/d'", "store.url: must be postgresql://USER:PASSWORD@HOST"),
        ("[store]\nurl = 'postgresql://u@h/d?password=pw'", "store.url: the password belongs before the host"),
        (
            "[store]\nurl = 'postgresql://u@h/d?sslmode=full'",
            "store.url: sslmode must be one of disable",
        ),
        ("[clock]\nspeed = 2", "clock: simulated time is refused: moost.base_url points to api.moost.io"),
        ("[clock]\nstart = 2026-01-01T00:00:00", "clock.start: needs a time zone"),
        ("[clock]\nstart = 'noon'", "clock.start: must be a time"),
        ("[logs]\nlevel = 'loud'", "logs.level: must be one of 'debug', 'info', 'warning', 'error'"),
        ("[[devices]]\nid = 'x'", "devices.0.kind: is missing"),
        ("[[devices]]\nkind = 'meter'", "devices.0.id: is missing"),
        ("[[devices]]\nkind = 'hvac'\nid = 'x'\nrole = 'grid'", 'devices.0.role: belongs to kind = "meter"'),
        ("[[devices]]\nkind = 'battery'\nid = 'x'\nrole = 'load'", 'devices.0.role: belongs to kind = "meter"'),
        ("[[devices]]\nkind = 'charger'\nid = 'x'\nrole = 'ignore'", 'devices.0.role: belongs to kind = "meter"'),
        ("[[devices]]\nkind = 'hvac'\nid = 'x'\nsign = 'import-positive'", 'devices.0.sign: belongs to kind = "meter"'),
        ("[[devices]]\nkind = 'battery'\nid = 'x'\nsign = 'import-positive'", "devices.0.sign: of a battery is one of"),
        ("[[devices]]\nkind = 'meter'\nid = 'x'\nsign = 'charge-positive'", "devices.0.sign: of a meter is one of"),
        ("[[devices]]\nkind = 'battery'\nid = 'x'\ncounter = 'import'", 'devices.0.counter: belongs to kind = "meter"'),
        ("[[devices]]\nkind = 'tariff'\nid = 'x'\nunit = 'W'", "devices.0.unit: belongs to devices with a power"),
        ("[[devices]]\nkind = 'meter'\nid = 'x'\nunit = 'MW'", "devices.0.unit: must be one of 'kW', 'W'"),
        ("[[devices]]\nkind='hvac'\nid='x'\n[[devices]]\nkind='hvac'\nid='x'", "devices.1.id: 'x' is named twice"),
        ("[[subscriptions]]\nid = 'sub-1'\nsecrets = ['whsec_YQ==']", "subscriptions.1.id: 'sub-1' is used twice"),
        ("[[subscriptions]]\nid = 'a.b'\nsecrets = ['whsec_YQ==']", "subscriptions.1.id: must be up to 100 char"),
        ("[[subscriptions]]\nsecrets = ['whsec_YQ==']", "subscriptions.1.id: is missing"),
        ("[codes]\nDEVICE_STATUS.CAR = { online = 5 }", "codes.DEVICE_STATUS.CAR.online: must be a code from -1 to 4"),
        ("[codes]\nDEVICE_STATUS.CAR = { on = 1 }", "codes.DEVICE_STATUS.CAR.on: must be one of active, disc"),
        ("[codes]\nDEVICE_STATUS.GATEWAY = {}", "codes.DEVICE_STATUS.GATEWAY: must be one of APPLIANCE, BATTERY"),
        ("[codes]\nTEMPERATURE.CAR = {}", "codes.TEMPERATURE: must be one of CHARGING_MODE, DEVICE_STATUS"),
        ("[codes]\nSWITCH_STATE.SWITCH = {}", "codes.SWITCH_STATE.SWITCH: must be one of CAR_CHARGER"),
        (
            "[codes]\nCHARGING_MODE.BATTERY = { AUTO = 8 }",
            "codes.CHARGING_MODE.BATTERY.AUTO: must be a code from 0 to 7",
        ),
        ("[codes]\nCHARGING_MODE.BATTERY = { auto = 1 }", "codes.CHARGING_MODE.BATTERY.auto: must be the device cloud"),
        ("[codes]\nCHARGING_MODE.BATTERY = { AUTO = 'x' }", "codes.CHARGING_MODE.BATTERY.AUTO: must be a whole number"),
    ],
)
def test_each_mistake_has_its_line(tmp_path: Path, line: str, problem: str) -> None:
    text = line + "\n" + GOOD if line.startswith(("server =",)) else GOOD + line
    if line.startswith("subscriptions ="):
        text = line + "\n[moost]" + GOOD.partition("[moost]")[2]
    [found] = problems(tmp_path, text)
    assert found.startswith(problem), found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_url", "ftp://api.moost.io"),
        ("base_url", "https://user:pw@api.moost.io"),
        ("base_url", "https://api.moost.io/?q=1"),
        ("base_url", "https://[::1"),
        ("base_url", "https://"),
        ("client_id", "a b"),
        ("client_id", "a" * 101),
        ("client_secret", "a+b"),
        ("customer_id", "1234"),
        ("max_concurrency", "0"),
        ("historical_batch", "0"),
        ("requests_per_second", "-1"),
        ("requests_per_second", "nan"),
        ("on_lost_reply", "shrug"),
        ("timeout", "10"),
        ("timeout", "-1s"),
        ("timeout", "99999999d"),
    ],
)
def test_each_value_of_moost_is_looked_at(tmp_path: Path, key: str, value: str) -> None:
    [found] = problems(tmp_path, **{f"BRIDGE_MOOST__{key.upper()}": value})
    assert found.startswith(f"moost.{key}: ")
    assert found.endswith(f"(from BRIDGE_MOOST__{key.upper()})")


def test_simulated_time_is_allowed_beside_a_loopback_moost(tmp_path: Path) -> None:
    text = GOOD + "base_url = 'http://127.0.0.1:9090/'\n[clock]\nstart = 2026-01-31T00:00:00Z\nspeed = 60"
    loaded = load(tmp_path, text)
    assert "http://127.0.0.1:9090" == loaded.moost.base_url
    assert datetime(2026, 1, 31, tzinfo=UTC) == loaded.clock.start


# ---- the way to MOOST -----------------------------------------------------------------------------------------------


class TestWayToMoost:
    PROXY = "http://bridge:canary-pa%21ss@proxy.example:3128"

    def test_http_beyond_this_machine_is_refused_unless_asked_for(self, tmp_path: Path) -> None:
        text = GOOD + 'base_url = "http://moost.example"\n'
        expected = (
            "moost.base_url: must be https: the client's secret stands in the address of the token call; "
            "insecure = true allows http"
        )
        assert [expected] == problems(tmp_path, text)
        assert load(tmp_path, text + "insecure = true\n").moost.insecure
        assert load(tmp_path, text, BRIDGE_MOOST__INSECURE="true").moost.insecure

    @pytest.mark.parametrize("host", ["127.0.0.1:9090", "localhost", "[::1]:1"])
    def test_http_on_this_machine_is_allowed(self, tmp_path: Path, host: str) -> None:
        assert load(tmp_path, GOOD + f'base_url = "http://{host}"\n').moost.base_url.endswith(host)

    def test_the_address_of_a_proxy_may_come_from_a_file_and_its_password_is_a_secret(self, tmp_path: Path) -> None:
        file = tmp_path / "proxy"
        file.write_text(self.PROXY + "\n")
        loaded = load(tmp_path, GOOD + f'proxy_file = "{file}"\n')
        assert self.PROXY == loaded.moost.proxy.get_secret_value()
        assert "canary-pa!ss" in loaded.secret_values()
        assert "canary" not in repr(loaded)

    @pytest.mark.parametrize(
        "value",
        [
            "proxy.example:3128",
            "socks5://proxy.example",
            "http://",
            "http://canary:pa@proxy.example/path",
            "http://canary:pa@proxy.example?x",
            "http://canary pa@proxy.example",
            "http://canary@[::1",
            "http://proxy.example:port",
        ],
    )
    def test_a_proxy_that_cannot_be_is_told_without_its_value(self, tmp_path: Path, value: str) -> None:
        (problem,) = problems(tmp_path, GOOD + f'proxy = "{value}"\n')
        assert 'moost.proxy: must be an address such as "http://user:password@proxy.example:3128"' == problem

    def test_a_file_of_certificates_must_be_one(self, tmp_path: Path) -> None:
        no_pem, missing = tmp_path / "no.pem", tmp_path / "missing.pem"
        no_pem.write_text("nothing")
        for file, problem in ((no_pem, "holds no certificates (PEM)"), (missing, None)):
            expected = f"'{file}' {problem}" if problem else f"there is no file '{file}'"
            assert [f"moost.ca_file: {expected}"] == problems(tmp_path, GOOD + f'ca_file = "{file}"\n')
        text = GOOD + f'base_url = "http://127.0.0.1:1"\nca_file = "{no_pem}"\n'
        assert ["moost.ca_file: belongs to a base_url with https"] == problems(tmp_path, text)


# ---- how a subscription proves itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('auth = "hmac"\nsecrets = ["x"]', "header"),
        ('auth = "bearer"\nsecrets = ["x"]\nheader = "x-sig"', "header"),
        ('auth = "bearer"\nsecrets = ["x"]\nalgorithm = "sha1"', "algorithm"),
        ('auth = "bearer"\nsecrets = ["a b"]', "secrets.0"),
        ('auth = "basic"\nsecrets = ["user"]', "secrets.0"),
        ('auth = "basic"\nsecrets = [""]', "secrets.0"),
        ('auth = "standard-webhooks"\nsecrets = ["YWJj"]', "secrets.0"),
        ('auth = "standard-webhooks"\nsecrets = ["whsec_"]', "secrets.0"),
        ('auth = "standard-webhooks"\nsecrets = ["whsec_a!b="]', "secrets.0"),
        ('auth = "standard-webhooks"\nsecrets = ["whsec_YWJ"]', "secrets.0"),
        ('auth = "standard-webhooks"', "secrets"),
        ('auth = "none"\nsecrets = ["x"]', "secrets"),
        ('auth = "oauth"\nsecrets = ["x"]', "auth"),
    ],
)
def test_a_subscription_that_cannot_be_verified_is_refused(tmp_path: Path, lines: str, key: str) -> None:
    [found] = problems(tmp_path, subscription(lines))
    assert found.startswith(f"subscriptions.0.{key}: ")


def test_every_kind_of_authentication_loads(tmp_path: Path) -> None:
    text = subscription('auth = "none"') + "".join(
        f'[[subscriptions]]\nid = "{name}"\nauth = "{name}"\nsecrets = ["{secret}"]\n{more}\n'
        for name, secret, more in [
            ("standard-webhooks", WHSEC, ""),
            ("hmac", "any text", 'header = "X-Signature"\nalgorithm = "sha512"\nencoding = "base64"\nprefix = "v1="'),
            ("bearer", "t0ken", ""),
            ("basic", "user:pass:word", ""),
        ]
    )
    text += '[[subscriptions]]\nid = "k"\nauth = "kafka"\n[kafka]\nbootstrap_servers = "k:9092"\nsecurity = "ssl"\n'
    loaded = load(tmp_path, text)
    assert list(Auth) == sorted((each.auth for each in loaded.subscriptions), key=list(Auth).index)
    hmac = loaded.subscription("hmac")
    assert hmac is not None
    assert ("x-signature", "sha512", "base64", "v1=") == (hmac.header, hmac.algorithm, hmac.encoding, hmac.prefix)
    assert loaded.subscription("nobody") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "bridge.example"])
def test_no_authentication_on_a_public_address_needs_networks(tmp_path: Path, host: str) -> None:
    [found] = problems(tmp_path, subscription('auth = "none"', host))
    assert f'subscriptions.0.auth: "none" on the public address {host} needs allowed_networks' == found
    loaded = load(tmp_path, subscription('auth = "none"\nallowed_networks = ["10.0.0.0/8", "2001:db8::1"]', host))
    assert (ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128")) == loaded.subscriptions[0].allowed_networks


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_no_authentication_is_fine_on_loopback(tmp_path: Path, host: str) -> None:
    assert Auth.NONE is load(tmp_path, subscription('auth = "none"', host)).subscriptions[0].auth


def test_a_network_of_mapped_addresses_is_the_network_of_those_addresses() -> None:
    made = [fields.network(text) for text in ("::ffff:10.0.0.0/104", "::ffff:10.0.0.9", "::ffff:0:0/96", "::/0")]
    assert ["10.0.0.0/8", "10.0.0.9/32", "0.0.0.0/0", "::/0"] == [str(each) for each in made]


# ---- several subscriptions ------------------------------------------------------------------------------------------


def several(*lines: str) -> str:
    """Return a sound file but for the lines of its subscriptions."""
    tables = (
        f'[[subscriptions]]\nid = "s-{number}"\nsecrets = ["{WHSEC}"]\n{line}\n' for number, line in enumerate(lines)
    )
    return "".join(tables) + "[moost]" + GOOD.partition("[moost]")[2]


@pytest.mark.parametrize(
    ("prefixes", "wrong"),
    [
        (("", ""), ()),  # they share their households, and trust each other
        (("a", "b"), ()),
        (("a-", "b-", ""), (2,)),  # a user of the third could be called "a-1"
        (("a", "ab"), (0,)),
        (("a", "a"), (0, 1)),
    ],
)
def test_no_subscription_can_write_the_users_of_another(
    tmp_path: Path, prefixes: Sequence[str], wrong: Sequence[int]
) -> None:
    text = several(*(f'user_prefix = "{prefix}"' for prefix in prefixes))
    if not wrong:
        assert prefixes == tuple(each.user_prefix for each in load(tmp_path, text).subscriptions)
        return
    found = problems(tmp_path, text)
    assert [f"subscriptions.{index}.user_prefix" for index in wrong] == [line.partition(":")[0] for line in found]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (('inherits = ["s-1"]', ""), "subscriptions.0.inherits.0: 's-1' is the id of a subscription"),
        (
            ('inherits = ["old"]', 'inherits = ["old"]'),
            "subscriptions.1.inherits.0: 'old' is inherited by 's-0' already",
        ),
        (('inherits = ["a.b"]',), "subscriptions.0.inherits.0: must be up to 100 characters without dots"),
        (
            ('[[devices]]\nkind = "meter"\nid = "m"\nsubscription = "x"',),
            "devices.0.subscription: 'x' is no subscription",
        ),
    ],
)
def test_only_what_can_be_is_inherited_or_named(tmp_path: Path, lines: Sequence[str], problem: str) -> None:
    (found,) = problems(tmp_path, several(*lines))
    assert found.startswith(problem)


def test_a_device_may_be_named_once_for_each_subscription(tmp_path: Path) -> None:
    device = '[[devices]]\nkind = "meter"\nid = "m"\nrole = "{}"\nsubscription = "{}"\n'
    named = device.format("load", "s-0") + device.format("sub", "s-1")
    rules = load(tmp_path, several("", named)).rules()
    assert [Role.LOAD, Role.SUB] == [rules.device(f"s-{n}", Kind.METER, "m").role for n in (0, 1)]
    (found,) = problems(tmp_path, several('inherits = ["old"]', named + device.format("grid", "old")))
    assert "devices.2.id: 'm' is named twice" == found


# ---- the environment ------------------------------------------------------------------------------------------------


def test_a_variable_replaces_the_key_of_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[server]\nport = 1", BRIDGE_SERVER__PORT="2", BRIDGE_INTERVALS__HOLD="2d")
    assert (2, timedelta(days=2)) == (loaded.server.port, loaded.intervals.hold)


def test_lists_are_replaced_as_a_whole_by_json(tmp_path: Path) -> None:
    devices: list[dict[str, Any]] = [{"kind": "meter", "id": "m", "role": "load"}]
    loaded = load(
        tmp_path,
        BRIDGE_SUBSCRIPTIONS=json.dumps([{"id": "other", "secrets": [WHSEC]}]),
        BRIDGE_DEVICES=json.dumps(devices),
        BRIDGE_SERVER__ID_HEADERS='["X-Id"]',
    )
    assert ["other"] == [each.id for each in loaded.subscriptions]
    assert ("x-id",) == loaded.server.id_headers
    assert {(Kind.METER, "m"): MeterRule(role=Role.LOAD)} == loaded.rules().devices


def test_code_tables_can_be_set_by_variables(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[codes]\nDEVICE_STATUS.CAR = {}", BRIDGE_CODES__DEVICE_STATUS__CAR='{"online": 1}')
    assert {(EventType.DEVICE_STATUS, DeviceType.CAR): {"online": 1}} == loaded.rules().codes


def test_variables_without_two_underscores_are_ignored(tmp_path: Path) -> None:
    assert load(tmp_path) == load(
        tmp_path, BRIDGE_CONFIG="x", BRIDGE_IMAGE="y", BRIDGE="z", BRIDGE_SERVER="{}", PORT="1"
    )


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("BRIDGE_SERVER__PROT", "1", "server.prot: unknown key; port may be meant (from BRIDGE_SERVER__PROT)"),
        ("BRIDGE_SERVR__PORT", "1", "servr: unknown key; server may be meant (from BRIDGE_SERVR__PORT)"),
        ("BRIDGE_SERVER__PORT__X", "1", "server.port__x: unknown key; port may be meant (from BRIDGE_SERVER__PORT__X)"),
        ("BRIDGE_SERVER__ID_HEADERS", "a,b", "server.id_headers: must be JSON (from BRIDGE_SERVER__ID_HEADERS)"),
        ("BRIDGE_SUBSCRIPTIONS", "[{", "subscriptions: must be JSON (from BRIDGE_SUBSCRIPTIONS)"),
        ("BRIDGE_DEVICES", "{}", "devices: must be a list (from BRIDGE_DEVICES)"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, problem: str) -> None:
    assert [problem] == problems(tmp_path, **{name: value})


def test_one_item_of_a_list_cannot_be_set(tmp_path: Path) -> None:
    [found] = problems(tmp_path, BRIDGE_SUBSCRIPTIONS__0__ID="x")
    assert "subscriptions: is set as a whole, by BRIDGE_SUBSCRIPTIONS, not by BRIDGE_SUBSCRIPTIONS__0__ID" == found


def test_the_environment_cannot_mend_a_broken_table(tmp_path: Path) -> None:
    found = problems(tmp_path, "server = 5\n" + GOOD, BRIDGE_SERVER__PORT="1")
    assert ["server: must be a table"] == [line.partition(" (from")[0] for line in found]


# ---- secrets --------------------------------------------------------------------------------------------------------

EACH_SECRET = [("server", "admin_token"), ("moost", "client_secret"), ("store", "url")]


@pytest.mark.parametrize(("section", "key"), EACH_SECRET)
def test_a_secret_comes_from_its_file_without_its_newline(tmp_path: Path, section: str, key: str) -> None:
    text = GOOD.replace("s3cret_value-1", "" if section == "moost" else "needed")
    value = "sqlite:////tmp/x.db" if key == "url" else "from-a-file"
    for ending in ("", "\n", "\r\n"):
        (tmp_path / "secret").write_bytes(f"{value}{ending}".encode())
        loaded = load(tmp_path, text, **{f"BRIDGE_{section.upper()}__{key.upper()}_FILE": str(tmp_path / "secret")})
        assert value == getattr(getattr(loaded, section), key).get_secret_value()


def test_only_one_newline_is_removed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token \n\n")
    loaded = load(tmp_path, BRIDGE_SERVER__ADMIN_TOKEN_FILE=str(tmp_path / "secret"))
    assert "token \n" == loaded.server.admin_token.get_secret_value()


def test_a_secrets_file_holds_one_per_line(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{WHSEC}\n\nwhsec_YQ==\n")
    loaded = load(tmp_path, subscription(f'secrets_file = "{tmp_path}/secrets"'))
    assert [WHSEC, "whsec_YQ=="] == [secret.get_secret_value() for secret in loaded.subscriptions[0].secrets]


def test_a_file_may_be_named_in_a_variable_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(WHSEC)
    loaded = load(tmp_path, BRIDGE_SUBSCRIPTIONS=json.dumps([{"id": "x", "secrets_file": f"{tmp_path}/secrets"}]))
    assert [WHSEC] == [secret.get_secret_value() for secret in loaded.subscriptions[0].secrets]


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other")
    [found] = problems(tmp_path, BRIDGE_MOOST__CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert found.startswith("moost.client_secret: set either client_secret or client_secret_file, not both")
    [found] = problems(tmp_path, subscription(f'secrets = ["{WHSEC}"]\nsecrets_file = "{tmp_path}/secret"'))
    assert found.startswith("subscriptions.0.secrets: set either secrets or secrets_file, not both")


def test_an_empty_secret_gives_way_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other")
    text = GOOD.replace("s3cret_value-1", "")
    loaded = load(tmp_path, text, BRIDGE_MOOST__CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert "other" == loaded.moost.client_secret.get_secret_value()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_secret_file_that_is_no_use_is_a_problem(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    text = GOOD.replace("s3cret_value-1", "")
    [found] = problems(tmp_path, text, BRIDGE_MOOST__CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert found.startswith("moost.client_secret: client_secret_file ")


def test_the_name_of_a_secret_file_is_text(tmp_path: Path) -> None:
    [found] = problems(tmp_path, GOOD + "[server]\nadmin_token_file = 5")
    assert "server.admin_token: admin_token_file must be the name of a file" == found
    assert load(tmp_path) == load(tmp_path, BRIDGE_SERVER__ADMIN_TOKEN_FILE="")  # not set


def test_only_secrets_have_files(tmp_path: Path) -> None:
    [found] = problems(tmp_path, BRIDGE_SERVER__HOST_FILE="/etc/hostname")
    assert found.startswith("server.host_file: unknown key")


def test_commands_at_the_desk_need_no_secret(tmp_path: Path) -> None:
    text = "[moost]\nclient_secret_file = '/nowhere'\n[[subscriptions]]\nid = 'x'\nsecrets_file = '/nowhere'"
    loaded = config.load(write(tmp_path, text), serving=False, environ={})
    assert ("", ()) == (loaded.moost.client_secret.get_secret_value(), loaded.subscriptions[0].secrets)


CANARIES = ("canary-admin-token", "canary-client-secret", "canary:basic-password", "canary-db-password")
FULL = f"""
[server]
admin_token = "{CANARIES[0]}"
[[subscriptions]]
id = "sub-1"
auth = "basic"
secrets = ["{CANARIES[2]}"]
[moost]
client_id = "abc"
client_secret = "{CANARIES[1]}"
customer_id = "656730be2bc9719e6e5ed51d"
[store]
url = "sqlite:////tmp/{CANARIES[3]}"
"""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:{}@h/d",
        "postgresql://u:{}@one:1,[::1]:5432,three/d?sslmode=disable",
        "postgres://u:{}@/d?host=h",
    ],
)
def test_the_password_of_a_database_is_known_wherever_it_is(url: str) -> None:
    settings = Settings(store=config.StoreSettings(url=url.format("p%2Fw-canary")))
    assert {"p/w-canary", "p%2Fw-canary"} == settings.secret_values()
    assert [] == list(database.problems(url.format("p%2Fw-canary")))


def test_no_secret_shows_in_the_settings() -> None:
    loaded = Settings(
        server=config.Server(admin_token=CANARIES[0]),
        moost=config.Moost(client_secret=CANARIES[1]),
        subscriptions=(config.Subscription(id="x", auth=Auth.BASIC, secrets=(CANARIES[2],)),),
        store=config.StoreSettings(url=f"postgresql://u:{CANARIES[3]}@h/d"),
    )
    shown = repr(loaded) + str(loaded) + repr(loaded.model_dump()) + loaded.model_dump_json()
    assert [] == [canary for canary in CANARIES if canary in shown]
    assert {*CANARIES, "basic-password"} == loaded.secret_values()


@pytest.mark.parametrize(
    "spoilt",
    [
        FULL.replace("canary-client", "canary client"),
        FULL.replace("canary:basic", "canary basic"),
        FULL.replace("sqlite:////", "mysql://u:pw@"),
        FULL.replace('admin_token = "canary-admin-token"', 'admin_token = ["canary-admin-token"]'),
        FULL.replace('secrets = ["canary:basic-password"]', 'secrets = "canary:basic-password"'),
        FULL.replace('secrets = ["canary:basic-password"]', 'secrets = [["canary:basic-password"]]'),
        FULL + "[moost]\n",
        FULL.replace('client_secret = "canary', "client_secret = canary"),
    ],
)
def test_no_secret_shows_in_a_problem(tmp_path: Path, spoilt: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, spoilt)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    shown = "".join(map(repr, chain)) + "".join(map(str, chain))
    assert "canary" not in shown.replace(str(tmp_path), "")


# ---- single values --------------------------------------------------------------------------------------------------


@given(st.integers(0, 3650), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_a_duration_is_a_number_and_a_unit(number: int, unit: tuple[str, float]) -> None:
    assert timedelta(seconds=number * unit[1]) == fields.duration(f"{number}{unit[0]}")


def test_values_made_in_code_pass_as_they_are() -> None:
    made = config.Server(drain_delay=timedelta(seconds=1), trusted_proxies=(ip_network("10.0.0.0/8"),))
    assert (timedelta(seconds=1), (ip_network("10.0.0.0/8"),)) == (made.drain_delay, made.trusted_proxies)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_nothing_else_is_a_duration_or_a_crash(value: object) -> None:
    try:
        found = fields.duration(value)
    except ValueError:
        return
    assert isinstance(value, str)
    assert value[0].isdigit()
    assert found >= timedelta(0)


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("5", 5), ("5B", 5), ("2 KiB", 2048), ("1_000kB", 10**6), ("10GiB", 10 * 2**30)]
)
def test_a_size_is_bytes_or_has_a_unit(text: object, size: int) -> None:
    assert size == fields.size(text)


@pytest.mark.parametrize("text", ["", "x", "5 bananas", "-5", "5iB", "_", True, 1.5, None, "5Kib"])
def test_nothing_else_is_a_size(text: object) -> None:
    with pytest.raises(ValueError, match="must be a number of bytes"):
        fields.size(text)


def test_the_defaults_are_those_of_the_core() -> None:
    assert Rules() == Settings().rules()


def test_the_rules_carry_every_setting(tmp_path: Path) -> None:
    text = GOOD + (
        "battery_soc = true\nlive_max_age = '1h'\n"
        "[[subscriptions]]\nid = 'b'\nsecrets = ['whsec_YQ==']\nuser_prefix = 'b-'\ninherits = ['old-b']\n"
        "meter_sign = 'export-positive'\nmeter_counter = 'import'\nunit = 'W'\n"
        "[[devices]]\nkind = 'meter'\nid = 'm'\nsign = 'export-positive'\ncounter = 'none'\n"
        "[[devices]]\nkind = 'meter'\nid = 'm'\nsubscription = 'old-b'\nrole = 'sub'\n"
        "[[devices]]\nkind = 'battery'\nid = 'b'\nsign = 'discharge-positive'\nunit = 'kW'\n"
        "[[devices]]\nkind = 'battery'\nid = 'c'\nsign = 'charge-positive'\nrole = 'ignore'\n"
        "[[devices]]\nkind = 'pv-inverter'\nid = 'p'\nrole = 'ignore'\n"
        "[intervals]\nstamp = 'inside'\ngrace = '1m'\n[buildings]\nunknown = 'park'\ndefault_country = 'AT'\n"
    )
    rules = load(tmp_path, text.replace("[moost]", "user_prefix = 'a-'\n[moost]", 1)).rules()
    assert SubscriptionRule(
        user_prefix="b-", meter_sign=-1, meter_counter=True, unit=PowerUnit.WATT
    ) == rules.subscription("b")
    assert SubscriptionRule(user_prefix="a-") == rules.subscription("sub-1")
    assert {
        (Kind.METER, "m"): MeterRule(sign=-1, counter=False),
        (Kind.BATTERY, "b"): MeterRule(sign=-1, unit=PowerUnit.KILOWATT),
        (Kind.BATTERY, "c"): MeterRule(sign=1, role=Role.IGNORE),
        (Kind.PV_INVERTER, "p"): MeterRule(role=Role.IGNORE),
    } == rules.devices
    assert {("b", Kind.METER, "m"): MeterRule(role=Role.SUB)} == rules.own_devices
    assert {"old-b": "b"} == rules.heirs
    assert (True, timedelta(hours=1), timedelta(minutes=1)) == (rules.battery_soc, rules.live_max_age, rules.grace)
    assert ("inside", "park", "AT") == (rules.stamp, rules.unknown, rules.default_country)


@pytest.mark.parametrize("host", [None, "", "10.0.0.1", "localhost.example", "127.0.0.1.example"])
def test_only_this_machine_is_loopback(host: str | None) -> None:
    assert not fields.is_loopback(host)


def test_the_file_for_dead_letters_stands_in_a_folder_that_is_there(tmp_path: Path) -> None:
    def found(name: str | Path) -> list[str]:
        return problems(tmp_path, GOOD + f'[store]\ndead_export = "{name}"\n')

    problem = "store.dead_export: must be a file in a folder that is there"
    assert [[problem], [problem]] == [found(tmp_path / "no" / "dead.jsonl"), found(tmp_path)]
    good = write(tmp_path, GOOD + f'[store]\ndead_export = "{tmp_path / "dead.jsonl"}"\n')
    assert str(tmp_path / "dead.jsonl") == config.load(good, environ={}).store.dead_export


@pytest.mark.parametrize("key", ["store_share", "dead_share"])
@pytest.mark.parametrize("value", ["0", "1.1", "-1", "nan"])
def test_a_share_is_more_than_nothing_and_at_most_all(tmp_path: Path, key: str, value: str) -> None:
    (problem,) = problems(tmp_path, GOOD + f"[store]\n{key} = {value}\n")
    assert problem.startswith(f"store.{key}: must be ")

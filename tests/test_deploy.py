"""What an operator deploys is valid, and names nothing that the bridge does not have."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from bridge.config import load
from bridge.metrics import Metrics

ROOT: Final = Path(__file__).parent.parent
DEPLOY: Final = ROOT / "deploy"
MANIFESTS: Final = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
KUBERNETES: Final = ("1.29", "1.34")  # the oldest and the newest release that the manifests are held against
SUFFIXES: Final = ("_total", "_bucket", "_sum", "_count")


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def found(kind: str) -> dict[str, Any]:
    """Return the one object of a kind among the manifests."""
    (one,) = [each for path in MANIFESTS for each in documents(path) if each["kind"] == kind]
    return one


def pod() -> dict[str, Any]:
    return dict(found("Deployment")["spec"]["template"]["spec"])


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def image_environment() -> dict[str, str]:
    """Return what the image sets."""
    text = (ROOT / "Dockerfile").read_text().rpartition("FROM")[2].replace("\\\n", " ")
    return dict(re.findall(r"\b(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))


# ---- the package ----------------------------------------------------------------------------------------------------


def test_the_licence_travels_with_the_package_and_into_the_image(tmp_path: Path) -> None:
    build = "import sys, flit_core.buildapi as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        (told,) = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert "License-Expression: Apache-2.0" in told.splitlines()
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    let_in = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()
    }
    assert "LICENSE" in copied
    assert copied == let_in


# ---- Kubernetes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", KUBERNETES)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_fits_the_schemas_of_kubernetes(path: Path, release: str) -> None:
    for one in documents(path):
        kubernetes_validate.validate(one, release, strict=True)


def test_a_manifest_with_a_slip_would_be_noticed() -> None:
    slipped = found("Deployment")
    slipped["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slipped, KUBERNETES[0], strict=True)


def test_the_kustomization_names_every_file_and_no_other() -> None:
    folder = DEPLOY / "kubernetes"
    (listed,) = documents(folder / "kustomization.yaml")
    files = [name for each in listed["configMapGenerator"] for name in each["files"]]
    assert {path.name for path in folder.iterdir()} == {"kustomization.yaml", *listed["resources"], *files}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert [("moost-bridge", version)] == [(each["name"], each["newTag"]) for each in listed["images"]]


def test_a_pod_has_time_to_drain() -> None:
    server = tomllib.loads((DEPLOY / "kubernetes" / "bridge.toml").read_text())["server"]
    assert pod()["terminationGracePeriodSeconds"] > seconds(server["drain_delay"]) + seconds(server["drain_timeout"])
    assert seconds(server["drain_delay"]) >= 2 * pod()["containers"][0]["readinessProbe"]["periodSeconds"]


def test_the_settings_of_the_pods_load_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"store_url": "sqlite:///bridge.db", "moost_secret": "s3cret", "webhook_secrets": "whsec_c2VjcmV0"}
    for name, value in secrets.items():
        (tmp_path / name).write_text(value + "\n")
    settings = (DEPLOY / "kubernetes" / "bridge.toml").read_text()
    assert set(secrets) == set(re.findall(r"/run/secrets/bridge/(\w+)", settings))
    config = tmp_path / "bridge.toml"
    config.write_text(settings.replace("/run/secrets/bridge", str(tmp_path)))
    for name, value in image_environment().items():
        if name.startswith("BRIDGE_"):
            monkeypatch.setenv(name, value)
    assert "/etc/bridge/bridge.toml" == image_environment()["BRIDGE_CONFIG"]
    loaded = load(config)
    assert ("0.0.0.0", "sqlite:///bridge.db") == (loaded.server.host, loaded.store.url.get_secret_value())
    mounts = {each["name"]: each["mountPath"] for each in pod()["containers"][0]["volumeMounts"]}
    assert {"settings": "/etc/bridge", "secrets": "/run/secrets/bridge"} == mounts


def test_the_probes_ask_what_the_bridge_answers() -> None:
    container = pod()["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {
        "startupProbe": "/health/live",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    } == paths


def test_every_container_is_locked_in() -> None:
    containers = [*pod()["initContainers"], *pod()["containers"]]
    for each in containers:
        lock = each["securityContext"]
        assert (False, True, ["ALL"]) == (
            lock["allowPrivilegeEscalation"],
            lock["readOnlyRootFilesystem"],
            lock["capabilities"]["drop"],
        )
        assert each["resources"]["limits"]["memory"]
    assert pod()["securityContext"]["runAsNonRoot"]


def test_the_disruption_budget_leaves_replicas() -> None:
    least = found("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert found("PodDisruptionBudget")["spec"]["maxUnavailable"] < least


# ---- the program's name ---------------------------------------------------------------------------------------------


def test_the_program_is_installed_under_a_name_of_its_own_and_hears_signals_from_its_first_line_on() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"moost-bridge": "bridge.__main__:main", "bridge": "bridge.__main__:main"} == scripts


def texts() -> Iterator[tuple[str, str]]:
    """Yield what operators read: pages, files to deploy, and the code, whose messages they see."""
    for folder, suffixes in (("bridge", (".py",)), ("deploy", (".yaml", ".service", ".toml")), ("docs", (".md",))):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes:
                yield path.relative_to(ROOT).as_posix(), path.read_text()
    for name in ("README.md", "CONTRIBUTING.md", "Dockerfile", "config/bridge.toml"):
        yield name, (ROOT / name).read_text()


def test_everything_calls_the_program_by_that_name() -> None:
    """On most Linux machines `bridge` is iproute2's."""
    words = "serve|demo|sandbox|simulate|map|check|buildings|dead-letters|replay|explain|forget|store|--help"
    called = re.compile(rf"(?:^|[`\"'/ ])bridge (?:{words})(?![\w])", re.MULTILINE)
    assert [] == [(name, found[0]) for name, text in texts() for found in called.finditer(text)]
    assert 'ENTRYPOINT ["moost-bridge"]' in (ROOT / "Dockerfile").read_text()


def test_nobody_is_told_to_install_a_name_that_anybody_may_claim() -> None:
    """The bridge is on no index; what is installed is its source, with the lock file's hashes."""
    claimed = re.compile(r"pip3? install[^\n]*moost-bridge|bridge\[\w+\]")
    assert [] == [(name, found[0]) for name, text in texts() for found in claimed.finditer(text)]


# ---- monitoring -----------------------------------------------------------------------------------------------------


def exported() -> set[str]:
    """Return the name of every metric as Prometheus stores it."""
    names: set[str] = set()
    for metric in Metrics().registry.collect():
        names.add(metric.name)
        names.update(metric.name + suffix for suffix in SUFFIXES)
    return names


def expressions() -> Iterator[str]:
    """Yield every PromQL expression that is shipped."""
    for group in documents(DEPLOY / "prometheus" / "alerts.yaml")[0]["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    (rules,) = documents(DEPLOY / "prometheus" / "adapter.yaml")
    yield from (rule["seriesQuery"] for rule in rules)  # type: ignore[index]
    yield from (each["pods"]["metric"]["name"] for each in _autoscaling() if each["type"] == "Pods")
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))


def _autoscaling() -> list[dict[str, Any]]:
    return list(found("HorizontalPodAutoscaler")["spec"]["metrics"])


def test_alerts_dashboard_and_autoscaler_ask_for_metrics_that_exist() -> None:
    asked = {name for expression in expressions() for name in re.findall(r"bridge_\w+|process_\w+", expression)}
    assert set() == asked - exported()
    assert "bridge_oldest_inbox_seconds" in asked


def test_every_alert_says_what_to_do() -> None:
    rules = [rule for group in documents(DEPLOY / "prometheus" / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
    assert [] == [rule["alert"] for rule in rules if set(rule["annotations"]) != {"summary", "action"}]
    assert {"page", "ticket"} == {rule["labels"]["severity"] for rule in rules}


def test_every_alert_that_asks_for_what_was_before_or_is_not_there_has_a_case_of_its_own() -> None:
    rules = [rule for group in documents(DEPLOY / "prometheus" / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
    delicate = {rule["alert"] for rule in rules if re.search(r"absent|unless|offset|increase\(|\) - ", rule["expr"])}
    cases = (DEPLOY / "prometheus" / "alerts.test.yaml").read_text().partition("trouble is named")[2]
    assert {"BridgeDown", "BridgeBuriesMessages", "BridgeHearsNothing", "BridgeKafkaRecordsLost"} == delicate
    assert set() == {alert for alert in delicate if cases.count(alert) < 2 + (alert == "BridgeDown")}


def test_no_alert_lets_one_installation_hide_another() -> None:
    """Whatever takes the largest, a share, or the lack of something has to look at each installation by itself."""
    rules = [rule for group in documents(DEPLOY / "prometheus" / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
    hiding = {rule["alert"] for rule in rules if re.search(r"\bmax\(.*\) ==|sum\(.*\) /|sum by \(le\)", rule["expr"])}
    assert set() == hiding


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    folder = DEPLOY / "prometheus"
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
        assert 0 == done.returncode, done.stdout + done.stderr

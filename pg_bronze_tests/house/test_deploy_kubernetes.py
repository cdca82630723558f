"""deploy/kubernetes: the values against the names of Dagster's chart, and everything against Kubernetes' own types."""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from kubernetes.client import models as k8s

from pg_bronze_tests.harness import helm_chart
from pg_bronze_tests.harness.deployments import DEPLOY, PROJECT_INSTANCE, parse

VALUES = yaml.safe_load((DEPLOY / "kubernetes/values.yaml").read_text())
DEPLOYMENTS = {item["name"]: item for item in VALUES["dagster-user-deployments"]["deployments"]}


def manifests() -> Iterator[dict[str, Any]]:
    for file in ("monitor.yaml", "servicemonitor.yaml"):
        yield from yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text())


def test_the_chart_knows_every_value():
    assert list(helm_chart.problems(VALUES)) == []


def test_a_misspelled_value_is_found():
    wrong = {"dagsterDaemon": {"sensor": {}, "resources": {"limit": {}}}, "telemetry": {"enabled": "no"}}

    assert len(list(helm_chart.problems(wrong))) == 3


def test_the_instance_of_the_chart_is_that_of_the_project():
    daemon, further = VALUES["dagsterDaemon"], VALUES["additionalInstanceConfig"]
    coordinator = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    retention = VALUES["retention"]

    assert further == {name: PROJECT_INSTANCE[name] for name in ("nux", "concurrency", "run_monitoring")}
    assert not daemon["runMonitoring"]["enabled"]
    assert {name: coordinator[name] for name in ("module", "class")} == PROJECT_INSTANCE["run_coordinator"]
    assert PROJECT_INSTANCE["sensors"] == {"use_threads": True, "num_workers": daemon["sensors"]["numWorkers"]}
    for kind in ("sensor", "schedule"):
        assert retention[kind]["purgeAfterDays"] == PROJECT_INSTANCE["retention"][kind]["purge_after_days"]


def test_the_run_launcher_accepts_its_configuration():
    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    # As the chart's template renders it.
    config = {re.sub("([A-Z])", lambda letter: f"_{letter[1].lower()}", name): given[name] for name in given}
    config = {name.replace("k8_s", "k8s"): value for name, value in config.items()}
    rendered = {
        "job_namespace": "default", "service_account_name": "dagster", "dagster_home": "/home",
        "run_k8s_config": config, "instance_config_map": "dagster-instance",
        "postgres_password_secret": "dagster-postgresql-secret",
    }  # fmt: skip

    result = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), rendered)

    assert result.success, result.errors
    assert helm_chart.read(k8s.V1JobSpec, {"template": {}, **given["jobSpecConfig"]}).ttl_seconds_after_finished == 300
    helm_chart.read(k8s.V1PodSpec, {"containers": [], **given["podSpecConfig"]})
    helm_chart.read(k8s.V1Container, {"name": "run", **given["containerConfig"]})
    helm_chart.read(k8s.V1ObjectMeta, given["podTemplateSpecMetadata"])


def test_each_database_has_a_code_server_with_its_own_secret_and_prefix():
    secrets = [item["name"] for one in DEPLOYMENTS.values() for item in one["envSecrets"]]

    assert secrets == [f"bronze-{name}" for name in DEPLOYMENTS]
    assert [one["env"]["PG_BRONZE_PREFIX"] for one in DEPLOYMENTS.values()] == list(DEPLOYMENTS)
    for one in DEPLOYMENTS.values():
        parse(["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", str(one["port"]), *one["codeServerArgs"]])
        # pg_bronze has to be the same everywhere: web server and daemon load its classes.
        assert one["image"] == VALUES["dagsterWebserver"]["image"] == VALUES["dagsterDaemon"]["image"]


def test_the_manifests_are_objects_of_kubernetes_and_the_monitor_has_the_settings_of_its_code_server():
    found = {item["kind"]: item for item in manifests()}
    deployment = helm_chart.read(k8s.V1Deployment, found["Deployment"])
    service = helm_chart.read(k8s.V1Service, found["Service"])
    (container,) = deployment.spec.template.spec.containers

    parse(container.args)
    plain = {item.name: item.value for item in container.env if item.value}
    assert plain == DEPLOYMENTS["cine"]["env"]
    assert [item.secret_ref.name for item in container.env_from] == [DEPLOYMENTS["cine"]["envSecrets"][0]["name"]]
    assert VALUES["global"]["postgresqlSecretName"] in {
        item.value_from.secret_key_ref.name for item in container.env if item.value_from
    }
    assert container.volume_mounts[0].mount_path.startswith(VALUES["global"]["dagsterHome"])
    assert service.spec.selector == deployment.spec.selector.match_labels
    selected = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service.metadata.labels.items()
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == service.spec.ports[0].name

"""The names that Dagster's Helm chart accepts in its values, as far as deploy/kubernetes may use them.

They are those of its schema in July 2026 (helm/dagster/schema in dagster-io/dagster, Apache-2.0). Helm ignores a
misspelled value where that schema allows further ones. A type of Kubernetes stands for its fields.
"""

from collections.abc import Iterator
from typing import Any, get_origin

from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes.client import models as k8s

IMAGE = {"repository": str, "tag": str, "pullPolicy": str}
POD = {
    "env": dict,
    "envConfigMaps": [k8s.V1ConfigMapEnvSource],
    "envSecrets": [k8s.V1SecretEnvSource],
    "labels": dict,
    "annotations": dict,
    "nodeSelector": dict,
    "affinity": k8s.V1Affinity,
    "tolerations": [k8s.V1Toleration],
    "podSecurityContext": k8s.V1PodSecurityContext,
    "securityContext": k8s.V1SecurityContext,
    "resources": k8s.V1ResourceRequirements,
    "livenessProbe": k8s.V1Probe,
    "schedulerName": str,
    "volumes": [k8s.V1Volume],
    "volumeMounts": [k8s.V1VolumeMount],
}
# The chart takes `enabled` away from these before it renders them.
PROBE = {"enabled": bool, **dict.fromkeys(("initialDelaySeconds", "periodSeconds", "timeoutSeconds"), int)}
PROBE |= {"successThreshold": int, "failureThreshold": int, "exec": k8s.V1ExecAction}
SERVICE_POD = {**POD, "image": IMAGE, "deploymentLabels": dict, "checkDbReadyInitContainer": bool, "logFormat": str}
SERVICE_POD |= {"readinessProbe": k8s.V1Probe, "startupProbe": k8s.V1Probe}
PURGE = {"purgeAfterDays": (int, {"skipped": int, "success": int, "failure": int, "started": int})}
THREADS = {"useThreads": bool, "numWorkers": int, "numSubmitWorkers": int}
CLASS = {"module": str, "class": str, "config": dict}

VALUES: dict[str, Any] = {
    "global": {"postgresqlSecretName": str, "dagsterHome": str, "serviceAccountName": str},
    "generatePostgresqlPasswordSecret": bool,
    "postgresql": {
        "enabled": bool,
        "postgresqlHost": str,
        "postgresqlUsername": str,
        "postgresqlDatabase": str,
        "postgresqlScheme": str,
        "postgresqlParams": dict,
        "service": {"port": int},
    },
    "imagePullSecrets": [k8s.V1LocalObjectReference],
    "dagster-user-deployments": {
        "enabled": bool,
        "enableSubchart": bool,
        "imagePullSecrets": [k8s.V1LocalObjectReference],
        "deployments": [
            {
                **POD,
                "name": str,
                "image": IMAGE,
                "codeServerArgs": [str],
                "port": int,
                "includeConfigInLaunchedRuns": {"enabled": bool},
                "readinessProbe": PROBE,
                "startupProbe": PROBE,
                "deploymentStrategy": k8s.V1DeploymentStrategy,
            }
        ],
    },
    "dagsterWebserver": {**SERVICE_POD, "replicaCount": int, "enableReadOnly": bool, "pathPrefix": str},
    "dagsterDaemon": {
        **SERVICE_POD,
        "enabled": bool,
        "heartbeatTolerance": int,
        "runCoordinator": {"enabled": bool, "type": str, "config": {"customRunCoordinator": CLASS}},
        "runMonitoring": {"enabled": bool},
        "sensors": THREADS,
        "schedules": THREADS,
    },
    "runLauncher": {
        "type": str,
        "config": {
            "k8sRunLauncher": {
                "imagePullPolicy": str,
                "jobNamespace": str,
                "labels": dict,
                "failPodOnRunFailure": bool,
                "runK8sConfig": {
                    "containerConfig": dict,
                    "podSpecConfig": dict,
                    "podTemplateSpecMetadata": dict,
                    "jobSpecConfig": dict,
                    "jobMetadata": dict,
                },
            }
        },
    },
    "computeLogManager": {"type": str},
    "retention": {"enabled": bool, "sensor": PURGE, "schedule": PURGE},
    "telemetry": {"enabled": bool},
    "additionalInstanceConfig": dict,
}


def read(model: type, given: dict[str, Any]) -> Any:
    """Return an object of Kubernetes; raise an error that names a field which it does not have."""
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, given))


def problems(values: Any, expected: Any = VALUES, place: str = "") -> Iterator[str]:
    """Yield the place of each value that the chart does not know, or that has another type."""
    if isinstance(expected, tuple):
        found = [list(problems(values, choice, place)) for choice in expected]
        yield from min(found, key=len)
    elif isinstance(expected, list) and isinstance(values, list):
        for number, value in enumerate(values):
            yield from problems(value, expected[0], f"{place}[{number}]")
    elif isinstance(expected, dict) and isinstance(values, dict):
        for name, value in values.items():
            if name in expected:
                yield from problems(value, expected[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is unknown"
    elif isinstance(expected, type) and hasattr(expected, "openapi_types") and isinstance(values, dict):
        try:
            read(expected, values)
        except Exception as error:  # noqa: BLE001  # the library raises several kinds
            yield f"{place}: {error}"
    elif not isinstance(expected, type) or get_origin(expected) or not isinstance(values, expected):
        yield f"{place} is {values!r}"

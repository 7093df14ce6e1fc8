"""The Kubernetes resources: of the API's schemas, confined, and reachable only where that is meant."""

from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.datastructures import Headers

from tests.deploy.files import KUBERNETES, resources
from unitscope_services.server.access.hosts import Hosts

FILES = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
PLAIN = [resource for file in FILES for resource in resources(file)]
RUN = resources("index.yaml")[0]


def named(kind: str, name: str) -> dict[str, Any]:
    return next(one for one in PLAIN if one["kind"] == kind and one["metadata"]["name"] == name)


def pods() -> list[dict[str, Any]]:
    """The pods of API, Ray head and Ray workers."""
    cluster = RUN["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [named("Deployment", "api")["spec"]["template"]["spec"], *(one["template"]["spec"] for one in groups)]


@pytest.mark.parametrize("resource", PLAIN, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_every_resource_is_of_the_schema(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.33", strict=True)


@pytest.mark.parametrize("number", range(3))
def test_every_pod_is_of_the_schema_and_confined(number: int) -> None:
    pod = pods()[number]
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
    kubernetes_validate.validate(whole, "1.33", strict=True)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert not container["image"].endswith(":latest")
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["corpus"]["readOnly"] is True
        assert mounts.keys() <= {volume["name"] for volume in pod["volumes"]}


def test_the_api_is_probed_and_only_reads() -> None:
    container = pods()[0]["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] != "scratch")
    labels = named("Deployment", "api")["spec"]["template"]["metadata"]["labels"]
    service = named("Service", "api")["spec"]
    assert service["selector"].items() <= labels.items()
    assert service["sessionAffinity"] == "ClientIP", "a replica knows its own uploads and jobs only"


def test_keys_are_mounted_for_the_group_of_the_pod_alone_and_the_service_may_be_asked_by_its_names() -> None:
    pod = pods()[0]
    secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys")
    assert secret["defaultMode"] == 0o440, "a key file that others may read is refused"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    names = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}["UNITSCOPE_ALLOWED_HOST"].split()
    hosts = Hosts(names)
    service = named("Service", "api")["metadata"]["name"]
    for host in (service, f"{service}.unitscope", f"{service}.unitscope.svc.cluster.local", "10.0.0.7:8000"):
        hosts.check(Headers({"host": host}), "GET")


def test_the_index_run_wants_a_token_and_its_status_is_read() -> None:
    spec = RUN["spec"]
    assert RUN["apiVersion"] == "ray.io/v1"
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["entrypoint"].startswith("unitscope index /corpus --atlas /atlases/atlas --address auto")
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "unitscope-ray"}
    for pod in pods()[1:]:
        variables = {one["name"]: one for one in pod["containers"][0]["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {
            "name": "unitscope-ray",
            "key": "auth_token",
        }


def test_nothing_is_reached_but_what_is_meant_to_be() -> None:
    assert named("NetworkPolicy", "closed")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ray = named("NetworkPolicy", "ray")["spec"]
    nodes = {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    assert ray["podSelector"] == nodes
    anyone = [rule for rule in ray["ingress"] if {"namespaceSelector": {}} in rule["from"]]
    assert [port["port"] for rule in anyone for port in rule["ports"]] == [9108]
    assert {"from": [{"podSelector": nodes}]} in ray["ingress"]


def test_the_monitor_finds_the_service_and_its_key() -> None:
    monitor = resources("monitor.yaml")[0]["spec"]
    service = named("Service", "api")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["endpoints"][0]["authorization"]["credentials"]["name"] == "unitscope-api"

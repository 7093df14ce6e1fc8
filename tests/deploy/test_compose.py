"""The compose file: of the specification, closed by default, and of files that are there."""

import json
import re
from typing import Any

import pytest
from compose_spec import PyCompose
from starlette.datastructures import Headers

from tests.deploy.files import ROOT, compose
from unitscope_services.server.access.hosts import Hosts

SERVICES = compose()["services"]
RAY = [name for name in SERVICES if name.startswith("ray-")]


def test_the_compose_file_is_of_the_specification() -> None:
    parsed = PyCompose.from_json(json.dumps(compose()))
    parsed.validate()
    assert set(parsed.service_names()) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["cap_drop"] == ["ALL"]
    assert service["init"] is True, "a first process that reaps: Ray waits for one that was killed"
    assert not service["user"].startswith(("0", "root"))
    assert "privileged" not in service
    assert re.search(r":v?\d+\.\d+", service["image"]), "an image is pinned to a version"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "healthcheck" in service or service["restart"] == "no"


@pytest.mark.parametrize("name", RAY)
def test_ray_wants_a_token_everywhere(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert any(volume.split(":")[1:] == [service["environment"]["TMPDIR"]] for volume in service["volumes"])
    assert service["environment"]["RAY_TMPDIR"] in service["tmpfs"], "Ray's sockets need a short path"
    assert "ray_token" in service["secrets"]


def test_the_api_only_reads_and_wants_keys() -> None:
    api = SERVICES["api"]
    assert "atlases:/atlases:ro" in api["volumes"]
    writable = [volume for volume in api["volumes"] if not volume.endswith(":ro")]
    assert writable == ["annotations:/annotations"]
    assert api["environment"]["UNITSCOPE_ANNOTATIONS"] == "/annotations"
    assert api["secrets"] == ["api_keys"]
    assert "atlases:/atlases" in SERVICES["ray-worker"]["volumes"]


def test_prometheus_may_ask_the_api_by_its_name() -> None:
    (target,) = re.findall(r"api:8000", (ROOT / "deploy/prometheus/prometheus.yml").read_text())
    Hosts(SERVICES["api"]["environment"]["UNITSCOPE_ALLOWED_HOST"].split()).check(Headers({"host": target}), "GET")


def test_optional_services_stand_in_profiles() -> None:
    profiles = {name: tuple(service.get("profiles", ())) for name, service in SERVICES.items()}
    assert {name for name, own in profiles.items() if not own} == {"api", "ray-head", "ray-worker"}
    assert {profile for own in profiles.values() for profile in own} == {"gpu", "store", "metrics"}
    assert "container_name" not in SERVICES["ray-worker"], "it could not be scaled"
    devices = SERVICES["ray-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["capabilities"] == ["gpu"]


def test_everything_that_is_mounted_or_named_is_there() -> None:
    document: dict[str, Any] = compose()
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= document["secrets"].keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source
            elif source != "./corpus":
                assert source in document["volumes"]
        if "build" in service:
            text = (ROOT / service["build"]["dockerfile"]).read_text()
            assert f" AS {service['build']['target']}\n" in text


def test_images_are_not_run_by_root_and_install_what_is_pinned() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11\.\d+-\S+ AS installed$", text, re.MULTILINE)
    assert "--constraint constraints.txt" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert text.count("HEALTHCHECK") == 2
    assert "RAY_AUTH_MODE=token" in text

"""What `docker-compose.yml` and the Dockerfile say, held without an engine; `tests/deploy` holds what they do."""

import json
import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.domain import errors
from app.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
NGINX: str = COMPOSE["services"]["proxy"]["environment"]["CONFIGURATION"]


def test_every_service_is_hardened_limited_and_restarted() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert "privileged" not in service, name


def test_one_port_is_published_and_redis_is_on_a_network_that_leads_nowhere() -> None:
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert services["proxy"]["ports"] == ["${PUBLISH:-127.0.0.1:8080}:8080"]
    assert services["proxy"]["networks"] == ["front"]
    assert services["redis"]["networks"] == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_nginx_streams_asks_nobody_twice_and_says_who_the_client_is() -> None:
    said = re.findall(r"^\s*(proxy_\w+) ([^;{]+);", NGINX, re.MULTILINE)
    assert ("proxy_buffering", "off") in said
    assert ("proxy_http_version", "1.1") in said
    assert ("proxy_read_timeout", "1h") in said
    assert ("proxy_set_header", "X-Forwarded-For $$remote_addr") in said
    assert ("proxy_set_header", 'X-Forwarded-Host ""') in said
    assert ("proxy_set_header", "Host $$http_host") in said
    assert ("proxy_next_upstream", "error timeout http_503") in said
    assert "non_idempotent;" not in NGINX
    assert "client_max_body_size ${MAX_MESSAGE_BYTES:-262144};" in NGINX
    types = re.findall(r"gzip_types ([^;]+);", NGINX)
    assert len(types) == 1
    assert "event-stream" not in types[0]
    assert "*" not in types[0]


def test_what_nginx_says_itself_are_errors_of_the_service() -> None:
    known = {
        error.code: error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ParleyError) and error is not errors.ParleyError
    }
    bodies = re.findall(r"return (\d+) '(\{.*\})';", NGINX)
    assert len(bodies) == 2
    for status, body in bodies:
        problem = json.loads(body)
        error = known[problem["code"]]
        assert (problem["status"], problem["title"]) == (int(status), error.title)
        assert problem["status"] == error.status
        assert problem["type"] == f"/docs#{error.code}"
        assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}


def test_the_image_names_the_version_of_the_project() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"ARG VERSION={setup['metadata']['version']}\n" in dockerfile


def test_compose_takes_the_file_with_and_without_settings(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("there is no docker compose here")

    def configured(**settings: str) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        file = tmp_path / "env"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [docker, "compose", "--env-file", str(file), "config", "--format", "json"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        services: dict[str, Any] = json.loads(done.stdout)["services"]
        return services

    services = configured()
    assert services["app"]["stop_grace_period"] == "30s"
    assert services["app"]["deploy"]["replicas"] == 2
    assert services["proxy"]["ports"][0]["host_ip"] == "127.0.0.1"

    services = configured(SHUTDOWN_GRACE_SECONDS="90", REPLICAS="5", PUBLISH="0.0.0.0:80", MAX_MESSAGE_BYTES="7")
    assert services["app"]["stop_grace_period"] == "1m40s"
    assert services["app"]["deploy"]["replicas"] == 5
    assert (services["proxy"]["ports"][0]["host_ip"], services["proxy"]["ports"][0]["published"]) == ("0.0.0.0", "80")
    assert "client_max_body_size 7;" in services["proxy"]["environment"]["CONFIGURATION"]


def test_a_redis_of_ones_own_goes_before_the_one_that_compose_names_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://redis:6379/0\n")
    for own, used in ((None, "redis://redis:6379/0"), ("redis://mine:6379/1", "redis://mine:6379/1")):
        given = {"redis_url": own} if own else {}
        url = Settings(redis_url_file=file, **given).redis_url  # type: ignore[arg-type]
        assert url is not None
        assert url.get_secret_value() == used

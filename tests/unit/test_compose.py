"""The Compose files and Dockerfiles: valid by schema and linter, and true to what this project promises of them."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml

from lookalike.settings import Settings
from lookalike_web.keys import KeyRing
from redis_server import start_redis, valkey_binary

ROOT = Path(__file__).parents[2]
OURS = ("web", "worker-ingest", "worker-search")
ONE_SHOT = "volumes"  # Prepares volumes and ends.
DOCKERFILES = ("web/Dockerfile", "worker/Dockerfile")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text()))


def merged(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Merge as Compose does for what the override holds: mappings key by key, lists appended, else replaced."""
    result = dict(base)
    for key, value in override.items():
        known = result.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            result[key] = merged(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            result[key] = known + value
        else:
            result[key] = value
    return result


PLAIN = load("docker-compose.yml")
WITH_GPU = merged(PLAIN, load("docker-compose.gpu.yml"))
SERVICES: dict[str, dict[str, Any]] = PLAIN["services"]
SERVERS = [name for name in SERVICES if name != ONE_SHOT]


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def seconds(duration: str) -> int:
    assert duration.endswith("s"), duration
    return int(duration[:-1])


@pytest.mark.parametrize("document", [PLAIN, load("docker-compose.gpu.yml"), WITH_GPU], ids=["plain", "gpu", "merged"])
def test_the_compose_files_follow_the_compose_specification(document: dict[str, Any]) -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
    assert list(validator.iter_errors({**document, "servces": {}})), "the schema does check"
    assert "version" not in document


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_dockerfiles_pass_the_linter(dockerfile: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    answer = subprocess.run([hadolint, ROOT / dockerfile], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_only_the_web_port_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in published["web"])
    assert not any(service.get("network_mode") == "host" for service in SERVICES.values())


def test_the_servers_are_on_a_network_that_leads_nowhere_else() -> None:
    assert PLAIN["networks"]["backend"]["internal"] is True
    for name in set(SERVERS) - set(OURS):
        assert SERVICES[name]["networks"] == ["backend"]


def test_workers_can_be_scaled() -> None:
    for service in SERVICES.values():
        assert "container_name" not in service
    for name in ("worker-ingest", "worker-search"):
        assert "ports" not in SERVICES[name]
        assert "--name" not in SERVICES[name]["command"], "each container gives its worker a name of its own"
        assert SERVICES[name]["image"] == "lookalike-worker"
        assert SERVICES[name]["build"] == SERVICES["worker-ingest"]["build"]


def test_everything_waits_for_what_it_needs_to_be_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, condition in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed == ONE_SHOT else "service_healthy"
            assert condition == {"condition": expected}, f"{name} needs {needed}"
    for name in OURS:
        assert set(SERVICES[name]["depends_on"]) == {"redis", "milvus"}
    assert set(SERVICES["milvus"]["depends_on"]) == {"etcd", "minio"}


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_has_a_health_check_and_restarts(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    health = service["healthcheck"]
    assert health["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(health["timeout"]) <= seconds(health["interval"])
    assert health["retries"] >= 3


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    if name == "milvus":  # The user that can run its files, and writes beside them, is its image's affair.
        return
    assert service["read_only"] is True
    user, group = service["user"].split(":")
    if name == ONE_SHOT:
        assert service["cap_add"] == ["CHOWN"]
        assert service["network_mode"] == "none"
        return
    assert int(user) > 0
    assert int(group) > 0
    assert "cap_add" not in service


def test_workers_have_time_to_finish_a_chunk() -> None:
    for name in ("worker-ingest", "worker-search"):
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 90


def test_the_pictures_are_read_only_and_uploads_are_shared() -> None:
    for name in OURS:
        volumes = SERVICES[name]["volumes"]
        assert "data:/var/lib/lookalike" in volumes
        pictures = next(volume for volume in volumes if isinstance(volume, dict))
        assert pictures["target"] == SERVICES[name]["environment"]["LOOKALIKE_ROOTS"]
        assert pictures["read_only"] is True
        assert pictures["bind"] == {"create_host_path": False}
    for name in SERVERS:
        named = [volume.split(":")[0] for volume in SERVICES[name].get("volumes", []) if isinstance(volume, str)]
        assert set(named) <= set(PLAIN["volumes"]), "data lies in named volumes"


@pytest.mark.parametrize("document", [PLAIN, WITH_GPU], ids=["plain", "gpu"])
def test_every_setting_of_ours_is_one(document: dict[str, Any]) -> None:
    for name in OURS:
        environment = document["services"][name]["environment"]
        assert environment["LOOKALIKE_REDIS_URL"]
        for variable in environment:
            assert variable.removeprefix("LOOKALIKE_").lower() in Settings.model_fields, variable


def test_the_settings_with_the_example_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: value or "hush" for name, value in example().items()}
    for name in OURS:
        for variable, value in SERVICES[name]["environment"].items():
            monkeypatch.setenv(variable, interpolated(value, given))
        settings = Settings()
        assert settings.redis_url.get_secret_value() == "redis://:hush@redis:6379/0"
        assert settings.milvus_token
        assert settings.milvus_token.get_secret_value() == "root:hush"
        assert settings.roots == (Path("/pictures"),)
        assert "[::1]" in settings.allowed_hosts
    assert "hush" not in str(settings)


def interpolated(text: str, given: dict[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[2] == ":+":
            return found[3] if given[found[1]] else ""
        return given[found[1]] or (found[3] if found[2] == ":-" else "")

    return re.sub(r"\$\{(\w+)(?:(:[-?+])([^}]*))?\}", value, text)


@pytest.mark.parametrize(("named", "keys"), [("", ()), ("keys.toml", ("visitor",))], ids=["unset", "set"])
def test_a_file_of_keys_is_read_where_one_is_named_and_else_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, keys: tuple[str, ...]
) -> None:
    hashed = "0" * 64
    (tmp_path / "keys.toml").write_text(f'[[keys]]\nname = "visitor"\nsha256 = ["{hashed}"]\n')
    given = {**example(), "KEYS_FILE": named and str(tmp_path / named)}
    (mount,) = [one for one in SERVICES["web"]["volumes"] if isinstance(one, dict) and "KEYS_FILE" in one["source"]]
    variable = interpolated(SERVICES["web"]["environment"]["LOOKALIKE_KEYS_FILE"], given)
    source = interpolated(mount["source"], given)
    assert variable == (mount["target"] if named else "")
    assert source == (str(tmp_path / named) if named else "/dev/null")
    assert mount["read_only"]
    # Inside the container what is mounted has the target's name.
    monkeypatch.setenv("LOOKALIKE_KEYS_FILE", source if variable else "")
    monkeypatch.delenv("LOOKALIKE_API_KEYS", raising=False)
    assert tuple(key.name for _, key in KeyRing.from_settings(Settings())._keys) == keys


def test_the_example_holds_exactly_the_variables_that_are_used() -> None:
    used = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())
    assert set(used) == set(example())


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = {name for name in example() if "PASSWORD" in name}
    assert secrets == {"REDIS_PASSWORD", "MILVUS_ROOT_PASSWORD", "MINIO_ROOT_PASSWORD"}
    for name in secrets:
        assert example()[name] == ""
        assert set(re.findall(rf"\$\{{{name}(:?.)", text)) == {":?"}, f"{name} has to be set"
        assert not re.search(rf"\${name}\b", text)


def test_the_containers_run_what_the_supervisor_runs() -> None:
    assert SERVICES["web"]["command"] == [
        *("python", "-m", "gunicorn", "-c", "python:lookalike_web.gunicorn_conf", "lookalike_web.wsgi:app")
    ]
    for lane in ("ingest", "search"):
        service = SERVICES[f"worker-{lane}"]
        assert service["command"] == ["python", "-m", "lookalike_worker", lane]
        assert service["healthcheck"]["test"][1:] == ["python", "-m", "lookalike_worker", "check", lane]
    for path, name in zip(DOCKERFILES, ("web", "worker-ingest"), strict=True):
        last = (ROOT / path).read_text().strip().splitlines()[-1]
        assert json.loads(last.removeprefix("CMD ")) == SERVICES[name]["command"], "an image alone does the same"


@pytest.mark.parametrize("lane", ["ingest", "search"])
def test_the_workers_commands_are_understood(lane: str) -> None:
    service = SERVICES[f"worker-{lane}"]
    for command in (service["command"], service["healthcheck"]["test"][1:]):
        answer = subprocess.run([sys.executable, *command[1:], "--help"], capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


def test_the_front_ends_command_loads_the_front_end(tmp_path: Path) -> None:
    command = [sys.executable, *SERVICES["web"]["command"][1:], "--check-config"]
    environment = {**os.environ, "LOOKALIKE_DATA_DIR": str(tmp_path)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_workers_health_check_fails_where_no_worker_lives(redis_url: str) -> None:
    command = SERVICES["worker-ingest"]["healthcheck"]["test"][1:]
    answer = subprocess.run(
        [sys.executable, *command[1:]], env={**os.environ, "LOOKALIKE_REDIS_URL": redis_url}, check=False
    )
    assert answer.returncode == 1


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_web_health_check_tells_health_from_sickness(status: int, healthy: bool) -> None:
    command = SERVICES["web"]["healthcheck"]["test"][1:]
    with answering(status) as port:
        answer = subprocess.run(
            [sys.executable, *command[1:]],
            env={"PATH": os.environ["PATH"], "LOOKALIKE_PORT": str(port)},
            capture_output=True,
            check=False,
        )
    assert (answer.returncode == 0) is healthy


def test_the_redis_options_make_a_durable_server_with_a_password(tmp_path: Path) -> None:
    program, *options = (interpolated(part, {"REDIS_PASSWORD": "s3cret"}) for part in SERVICES["redis"]["command"])
    assert program == "redis-server"
    # Without the password the fixture could not tell that the server is up.
    at = options.index("--requirepass")
    password, others = options[at : at + 2], options[:at] + options[at + 2 :]
    with start_redis(valkey_binary(), tmp_path, options=tuple(others)) as url, redis.Redis.from_url(url) as client:
        client.config_set("requirepass", password[1])
        found = client.config_get("append*", "maxmemory*", "save")
        with redis.Redis.from_url(url) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "everysec"
    assert found["maxmemory"] == str(512 << 20)
    assert found["maxmemory-policy"] == "noeviction"
    assert found["save"] == ""


def test_the_images_install_what_ci_tests_and_run_as_nobody_special() -> None:
    extras = {"web/Dockerfile": "[web,s3]", "worker/Dockerfile": "[worker,openvino,s3,parquet]"}
    for path, extra in extras.items():
        text = (ROOT / path).read_text()
        assert f'--constraint constraints.txt ".{extra}"' in text
        assert "USER 10001:10001" in text
        assert "org.opencontainers.image.title" in text
        assert text.count("FROM ") == 2, "the build's tools stay behind"
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
            for source in line.split():
                assert (ROOT / source).exists()
                assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_gpu_file_gives_a_gpu_to_the_workers_and_changes_nothing_else() -> None:
    for name, service in WITH_GPU["services"].items():
        before = SERVICES[name]
        if not name.startswith("worker-"):
            assert service == before
            continue
        devices = service["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
        assert service["environment"] == {**before["environment"], "LOOKALIKE_DEVICE": "cuda"}
        assert {key: service[key] for key in before if key != "environment"} == {
            key: before[key] for key in before if key != "environment"
        }

"""The compose file: valid, only on the loopback interface, not as root, and all that it names is there."""

import re
import subprocess
import sys

import pytest
from mlflow.cli import cli as mlflow_cli

from crosseai.serve.control import ADMIN_KEY_HEADER, ADMIN_KEY_VARIABLE
from crosseai.serve.embedded import RESTRICTED
from tests.deployed import DEPLOY, DOCKERFILES, Json, parse, read_yaml, values, words

FILE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Json]:
    (document,) = read_yaml(FILE)
    return document["services"]


def test_the_schema_of_compose_files():
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE)
    finished = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_service_is_confined(services):
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "healthcheck" in service or name == "agent" or values(service["image"], "HEALTHCHECK"), name


def test_what_is_named_exists(services):
    (document,) = read_yaml(FILE)
    mounted = set()
    for name, service in services.items():
        for source, *_ in (volume.split(":") for volume in service.get("volumes", []) if not volume.startswith("$")):
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in document["volumes"], source
            mounted.add(source)
        assert set(service.get("depends_on", ())) <= set(services), name
        if "build" in service:
            build = service["build"]
            file, stage = DOCKERFILES[service["image"]]
            assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "containers" / file
            assert build.get("target", "") == stage
        else:
            assert service["image"] in DOCKERFILES or re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"]), name
    assert set(document["volumes"]) <= mounted


def test_the_commands_are_ours_and_mlflows(services):
    for name in ("agent", "client"):
        parse([*words(services[name]["image"], "ENTRYPOINT"), *services[name]["command"]])
    program, command = services["mlflow"]["entrypoint"]
    assert program == "mlflow"
    parameters = mlflow_cli.commands[command].make_context(command, list(services["mlflow"]["command"])).params
    names = parameters["allowed_hosts"].split(",")
    assert services["agent"]["environment"]["MLFLOW_TRACKING_URI"] == f"http://{names[0]}"
    assert names[0] == f"mlflow:{parameters['port']}"


def test_an_exposed_server_wants_the_admin_key(services):
    closed = f"={RESTRICTED}:{ADMIN_KEY_HEADER}=${{{ADMIN_KEY_VARIABLE}:?}}"
    expected = {f"--grpc-restricted-protocol{closed}", f"--http-restricted-api{closed}"}
    assert set(services["server"]["command"]) == expected
    assert services["agent"]["environment"][ADMIN_KEY_VARIABLE] == f"${{{ADMIN_KEY_VARIABLE}:?}}"


def test_prometheus_scrapes_what_is_served(services):
    (configuration,) = read_yaml(DEPLOY / "monitoring/prometheus.yml")
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in configuration["scrape_configs"]}
    client = parse(["crosseai-client", *services["client"]["command"]]).params
    assert (client["metrics_host"], client["server"]) == ("0.0.0.0", "grpc://server:8001")  # noqa: S104 - in its network
    assert targets == {"crosseai-server": ["server:8002"], "crosseai-client": [f"client:{client['metrics_port']}"]}
    assert values("crosseai-server", "EXPOSE") == ["8000 8001 8002"]


def test_every_variable_is_described(services):
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", FILE.read_text(encoding="utf-8"))) == set(
        re.findall(r"^\| `([A-Z_]+)` \|", readme, re.M)
    )

"""The Kubernetes manifests: valid by Kubernetes' own schema, and in agreement with each other and with our commands."""

import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from crosseai.client.exit_codes import EXIT_FAILED
from tests.deployed import DEPLOY, DOCKERFILES, Json, containers, parse, read_yaml, resources, words

FOLDERS = ("base", "batch")
KUBERNETES = DEPLOY / "kubernetes"


def pod_of(folder: str) -> Json:
    """Template of the only pods of a folder."""
    found = [r for (kind, _), r in resources(folder).items() if kind in ("Deployment", "Job")]
    (workload,) = found
    return workload["spec"]["template"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_schema_of_each_resource(folder):
    for resource in resources(folder).values():
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_listed(folder):
    (kustomization,) = read_yaml(KUBERNETES / folder / "kustomization.yaml")
    generated = [
        name for generator in kustomization.get("configMapGenerator", []) for name in generator.get("files", [])
    ]
    listed = {*kustomization["resources"], *generated, "kustomization.yaml"}
    assert listed == {file.name for file in (KUBERNETES / folder).iterdir()}
    images = {container["image"] for container in containers(pod_of(folder)).values()}
    assert {image["name"] for image in kustomization["images"]} == images
    assert all(re.match(r"\d", image["newTag"]) for image in kustomization["images"])


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_makes_the_same_resources(folder):
    rendered = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / folder], check=True, capture_output=True, text=True
    ).stdout
    made = {(r["kind"], r["metadata"]["name"]): r for r in yaml.safe_load_all(rendered)}
    assert {key for key in made if key[0] != "ConfigMap"} == set(resources(folder))
    for resource in made.values():
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    generated = {name for kind, name in made if kind == "ConfigMap"}
    for key in made.keys() & {("Deployment", "crosseai-server")}:
        assert all(name in str(made[key]) for name in generated), "renamed where they are used"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_is_confined(folder):
    template = pod_of(folder)
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 1000, 1000)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, container in containers(template).items():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
        assert "memory" in container["resources"]["limits"], name


@pytest.mark.parametrize("folder", FOLDERS)
def test_volumes_are_those_that_are_mounted(folder):
    template = pod_of(folder)
    volumes, found = template["spec"]["volumes"], containers(template).values()
    assert {m["name"] for container in found for m in container["volumeMounts"]} == {v["name"] for v in volumes}
    assert all("/tmp" in {m["mountPath"] for m in container["volumeMounts"]} for container in found)
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert claims == {name for kind, name in resources(folder) if kind == "PersistentVolumeClaim"}
    (kustomization,) = read_yaml(KUBERNETES / folder / "kustomization.yaml")
    generated = {generator["name"] for generator in kustomization.get("configMapGenerator", [])}
    named = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    named |= {source["configMapRef"]["name"] for container in found for source in container.get("envFrom", [])}
    assert named == generated


def test_the_one_gpu_is_tritons():
    found = containers(pod_of("base"))
    limits = {name: container["resources"]["limits"].get("nvidia.com/gpu") for name, container in found.items()}
    assert limits == {"server": 1, "agent": None, "proxy": None}


def test_selectors_find_the_servers():
    base = resources("base")
    labels = pod_of("base")["metadata"]["labels"]
    deployment = base["Deployment", "crosseai-server"]["spec"]
    selectors = [
        deployment["selector"]["matchLabels"],
        base["Service", "crosseai-server"]["spec"]["selector"],
        base["PodDisruptionBudget", "crosseai-server"]["spec"]["selector"]["matchLabels"],
        base["NetworkPolicy", "crosseai-server"]["spec"]["podSelector"]["matchLabels"],
        deployment["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    job = pod_of("batch")["metadata"]["labels"]
    assert base["NetworkPolicy", "crosseai-server"]["spec"]["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": job}}
    ]
    assert job != labels
    target = base["HorizontalPodAutoscaler", "crosseai-server"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in base
    assert "replicas" not in deployment, "the autoscaler's"


def test_ports_are_those_of_the_proxy():
    pod, base = pod_of("base"), resources("base")
    proxy, server = (containers(pod)[name] for name in ("proxy", "server"))
    ports = {port["name"]: port["containerPort"] for port in proxy["ports"]}
    nginx = (KUBERNETES / "base/nginx.conf").read_text(encoding="utf-8")
    assert {int(port) for port in re.findall(r"listen (\d+)", nginx)} == set(ports.values())
    (service,) = base["Service", "crosseai-server"]["spec"]["ports"]
    assert ports[service["targetPort"]] == service["port"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["port"] in ports
    ingress = base["NetworkPolicy", "crosseai-server"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in ingress] == ["grpcs", "health"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["health"])
    assert base["Service", "crosseai-server"]["spec"]["clusterIP"] == "None", "clients balance"


def test_arguments_are_options_of_our_commands():
    agent = containers(pod_of("base"))["agent"]
    watching = parse([*words(agent["image"], "ENTRYPOINT"), *agent["args"]]).params
    assert watching["watching"]
    assert str(watching["repository"]) in {mount["mountPath"] for mount in agent["volumeMounts"]}
    pod = pod_of("batch")
    client = containers(pod)["client"]
    run = parse([*words(client["image"], "ENTRYPOINT"), *client["args"]]).params
    (service,) = resources("base")["Service", "crosseai-server"]["spec"]["ports"]
    assert run["server"] == f"dns:///crosseai-server:{service['port']}"
    assert {str(run["source"]), str(run["output"])} <= {mount["mountPath"] for mount in client["volumeMounts"]}
    (port,) = client["ports"]
    assert run["metrics_port"] == port["containerPort"] == int(pod["metadata"]["annotations"]["prometheus.io/port"])
    assert {agent["image"], client["image"]} <= set(DOCKERFILES)


def test_the_job_tries_again_only_what_may_get_better():
    rules = resources("batch")["Job", "crosseai-run"]["spec"]["podFailurePolicy"]["rules"]
    usage_error = 2
    assert rules[0]["onExitCodes"]["values"] == [EXIT_FAILED, usage_error]
    assert rules[0]["onExitCodes"]["containerName"] in containers(pod_of("batch"))


def test_the_autoscaler_gets_the_recorded_queue_time():
    (metric,) = resources("base")["HorizontalPodAutoscaler", "crosseai-server"]["spec"]["metrics"]
    (adapter,) = read_yaml(DEPLOY / "monitoring/prometheus-adapter.yaml")
    (rule,) = adapter["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    (rules,) = read_yaml(DEPLOY / "monitoring/rules.yml")
    recorded = {r.get("record") for group in rules["groups"] for r in group["rules"]}
    assert rule["seriesQuery"].partition("{")[0] in recorded

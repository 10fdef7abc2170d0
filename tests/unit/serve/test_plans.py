"""Plans against machines: `nvidia-smi` and `docker` say what a GPU server's would."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crosseai.serve.cli import main

RECORD = {
    "builder": "TensorRT",
    "version": "10.13.3.9",
    "gpu": "NVIDIA H200",
    "driver": "580.65.06",
    "cuda": "13.0.1",
    "triton": "2.61.0",
}
IMAGE = {"TRT_VERSION": "10.13.3.9", "CUDA_VERSION": "13.0.2.006", "NVIDIA_TRITON_SERVER_VERSION": "25.10"}
SMI = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
    <driver_version>{driver}</driver_version><cuda_version>{cuda}</cuda_version>
    {gpus}
</nvidia_smi_log>
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path / "models/crosseai/1/model.plan")


@pytest.fixture
def gpu_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts commands on PATH that tell of a machine, and the variables of an image into the environment."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def make(*gpus: str, driver: str = "580.65.06", cuda: str = "13.0", image: dict[str, str] = IMAGE) -> None:
        products = "".join(f"<gpu><product_name>{gpu}</product_name></gpu>" for gpu in gpus)
        write_command(tmp_path / "bin/nvidia-smi", SMI.format(driver=driver, cuda=cuda, gpus=products))
        for name in IMAGE:
            monkeypatch.delenv(name, raising=False)
        for name, value in image.items():
            monkeypatch.setenv(name, value)

    return make


def write_plan(plan: Path, **changes: str) -> Path:
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(b"a plan")
    record = {"sha256": hashlib.sha256(b"a plan").hexdigest(), **RECORD, **changes}
    plan.with_name("model.plan.json").write_text(json.dumps(record))
    return plan


def write_command(file: Path, output: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{output}\nEND\n")
    file.chmod(0o755)


def doctor(plan: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--repository", str(plan.parents[2]), *arguments])


def test_a_machine_that_can_load_the_plan(plan, gpu_server):
    gpu_server("NVIDIA H200", "NVIDIA H200")
    result = doctor(plan)
    assert (result.exit_code, result.output) == (0, f"ok   plan {plan}\n")


@pytest.mark.parametrize(
    ("machine", "problem"),
    [
        ({"image": {}}, "TensorRT: expected 10.13.3.9 (Triton 2.61.0, driver 580.65.06), found none (Triton unknown)"),
        ({"image": {**IMAGE, "TRT_VERSION": "10.14.0.1"}}, "found 10.14.0.1 (Triton 25.10)"),
        ({"image": {**IMAGE, "CUDA_VERSION": "12.9.1"}}, "CUDA: expected 13.0.1, found 12.9.1"),
        ({"driver": "560.35", "cuda": "12.6"}, "driver: expected one for CUDA 13.0.2.006, found 560.35, for CUDA 12.6"),
        ({"gpus": ["NVIDIA H200", "NVIDIA L4"]}, "GPUs: expected NVIDIA H200, found NVIDIA H200, NVIDIA L4"),
    ],
)
def test_what_keeps_a_plan_from_loading_is_said(plan, gpu_server, machine, problem):
    gpu_server(*machine.pop("gpus", ["NVIDIA H200"]), **machine)
    result = doctor(plan)
    assert result.exit_code == 1
    assert result.output.startswith(f"FAIL plan {plan}: ")
    assert problem in result.output
    assert result.output.count("expected") == 1


def test_all_reasons_are_said_of_each_plan(plan, gpu_server):
    write_plan(plan, builder="TensorRT-RTX", cuda="", triton="", driver="")
    other = write_plan(plan.parents[1] / "2/model.plan")
    other.write_bytes(b"another plan")
    gpu_server("NVIDIA L4")
    first, second = doctor(plan).output.splitlines()
    assert "builder: expected TensorRT, found TensorRT-RTX; GPUs: expected NVIDIA H200, found NVIDIA L4" in first
    assert "CUDA:" not in first, "what the record does not say is not compared"
    assert f"SHA-256: expected {hashlib.sha256(b'a plan').hexdigest()}, found" in second


def test_an_image_is_asked_through_docker(plan, gpu_server, tmp_path):
    gpu_server("NVIDIA H200", image={})
    variables = [f"{name}={value}" for name, value in {**IMAGE, "PATH": "/bin", "OPTIONS": "a=b"}.items()]
    write_command(tmp_path / "bin/docker", json.dumps(variables))
    assert doctor(plan, "--image", "tritonserver:25.10-py3").exit_code == 0
    (tmp_path / "bin/docker").write_text("#!/bin/sh\necho 'No such image' >&2; exit 1\n")
    result = doctor(plan, "--image", "tritonserver:25.10-py3")
    assert result.exit_code == 3
    assert "tritonserver:25.10-py3` gave 1: No such image" in result.output


def test_without_record_driver_or_plan(plan, gpu_server, tmp_path, monkeypatch):
    gpu_server("NVIDIA H200")
    plan.with_name("model.plan.json").unlink()
    assert "expected the record of `crosseai-export tensorrt` in" in doctor(plan).output
    monkeypatch.setenv("PATH", "/nowhere")
    result = doctor(plan)
    assert (result.exit_code, "expected the command 'nvidia-smi'" in result.output) == (3, True)
    plan.unlink()
    result = doctor(plan)
    assert (result.exit_code, "expected TensorRT plans, MODEL/VERSION/model.plan" in result.output) == (1, True)


@pytest.mark.parametrize("arguments", [["--image", "a"], ["--repository", "r", "--install"]])
def test_usage(arguments):
    assert CliRunner().invoke(main, ["doctor", *arguments]).exit_code == 2

"""The layout of convolutions on CPUs that this one is not, under emulation."""

import platform
import shutil
import subprocess
import sys

import pytest

EMULATOR = shutil.which("qemu-x86_64")


@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="qemu-user is not installed")
@pytest.mark.parametrize(("cpu", "block"), [("Haswell", 8), ("Nehalem", None)])
def test_the_same_answers(cpu, block):
    """Blocks of 8 channels with AVX2; before AVX no blocks, and graphs as ONNX Runtime optimises them."""
    chosen = "not any_graph" if block else "each_step"
    command = [EMULATOR, "-cpu", cpu, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen]
    finished = subprocess.run(
        [*command, "tests/unit/serve/test_blocked.py"], capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stdout
    if block:
        code = f"from triton_models.backends.onnxruntime.cpu.blocked import block_size; assert block_size() == {block}"
        subprocess.run([EMULATOR, "-cpu", cpu, sys.executable, "-c", code], check=True, capture_output=True)

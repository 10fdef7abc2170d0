"""The layout of convolutions on CPUs that this one is not, under emulation."""

import platform
import shutil
import subprocess
import sys

import pytest

EMULATOR = shutil.which("qemu-x86_64")


@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="qemu-user is not installed")
def test_blocks_of_avx2_give_the_same_answers():
    emulated = [EMULATOR, "-cpu", "Haswell", sys.executable]
    chosen = "reordered or clips or in_place or our_own or (each_step and (channel or everywhere))"
    tests = ["-q", "-p", "no:cacheprovider", "-k", chosen, "tests/unit/serve/test_blocked.py"]
    command = [*emulated, "-m", "pytest", *tests]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 0, finished.stdout
    code = "from triton_models.backends.onnxruntime.cpu.blocked import block_size; assert block_size() == 8"
    subprocess.run([*emulated, "-c", code], check=True, capture_output=True)

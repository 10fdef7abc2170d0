"""Pages of one image serve the next."""

import platform
import subprocess
import sys

import pytest

FAULTS_AN_IMAGE = """
import resource, sys, threading
import numpy as np
from crosseai.client.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def image():
    content, pixels = bytes(500_000), np.zeros(1_000_000, np.uint8)
    pixels[:] = 1

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def images():
    image()
    before = faults()
    for _ in range(50):
        image()
    print((faults() - before) / 50)

worker = threading.Thread(target=images)
worker.start()
worker.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc's allocator alone")
def test_freed_memory_serves_the_next_image() -> None:
    def faults(case: str) -> float:
        command = [sys.executable, "-c", FAULTS_AN_IMAGE, case]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < 5
    assert faults("kept") <= faults("given back")

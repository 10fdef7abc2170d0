"""Pages of one image serve the next."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS_AN_IMAGE = """
import resource, sys, threading
from pathlib import Path
import cv2
import numpy as np
from crosseai.client.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

file = Path(sys.argv[2])
cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 99, (1024, 1024), np.uint8))

def image():
    cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)

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
def test_freed_memory_serves_the_next_image(tmp_path: Path) -> None:
    def faults(case: str) -> float:
        command = [sys.executable, "-c", FAULTS_AN_IMAGE, case, str(tmp_path / "image.png")]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < 5
    assert faults("kept") < faults("given back")

"""Annotation files in the eyes of the tools that they are for, which need an environment of their own."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from crosseai.client.formats.cvat import write_cvat
from crosseai.client.formats.fiftyone import write_fiftyone
from crosseai.client.formats.label_studio import write_label_studio
from tests.run_folder import SPEC, made_up_results

PACKAGES = {"cvat": "datumaro", "fiftyone": "fiftyone", "label_studio": "label-studio-sdk"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every annotation file of a few images, and the images."""
    folder = tmp_path_factory.mktemp("annotations")
    (folder / "images").mkdir()
    for result in RESULTS:
        cv2.imwrite(str(folder / "images" / result.path), np.zeros((result.height, result.width), np.uint8))
    write_cvat(folder / "cvat.xml", RESULTS, SPEC.classes)
    write_fiftyone(folder / "fiftyone.json", RESULTS, SPEC.classes)
    write_label_studio(folder / "label_studio.json", RESULTS)
    return folder


RESULTS = [replace(result, path=Path(result.path).name, width=1200, height=999) for result in made_up_results(12)]


@pytest.mark.parametrize("name", PACKAGES)
def test_boxes_come_back(repository: Path, folder: Path, name: str) -> None:
    python = repository / "build" / "readers" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{PACKAGES[name]} is not at hand: make readers")
    script = repository / "tests" / "readers" / f"read_{name}.py"
    done = subprocess.run([python, script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {(image.removeprefix("?d="), disease): edges for image, disease, *edges in json.loads(done.stdout)}
    expected = {(Path(r.path).stem, f.disease): f.box_image_px for r in RESULTS for f in r.localized}
    assert len(expected) > 10
    assert found == {key: pytest.approx(box, abs=1e-6) for key, box in expected.items()}

from dataclasses import replace
from pathlib import Path

import pytest

from crosseai.client.ground_truth import read_ground_truth
from crosseai.contract import InputError
from tests.run_folder import made_up_results


def test_boxes_are_those_of_the_image_and_the_disease_in_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h]\n"
        "a.png,Infiltrate,512,256,256,512\na.png,Infiltrate,0,0,1024,1024\nb.png,Mass,1,2,3,4\n"
    )
    truth = read_ground_truth(tmp_path / "boxes.csv")
    image = replace(next(made_up_results(1)), path="folder/a.dcm", width=2048, height=512)
    assert truth.of(image, "Infiltration") == [(1024, 128, 1536, 384), (0, 0, 2048, 512)]
    assert truth.of(image, "Mass") == []
    assert len(truth.sha256) == 64


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        read_ground_truth(tmp_path / "absent.csv")

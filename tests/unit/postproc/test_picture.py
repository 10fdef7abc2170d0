"""The README's picture is drawn by the code itself."""

import runpy
from pathlib import Path

import cv2
from click.testing import CliRunner


def test_the_picture_is_drawn(repository: Path, tmp_path: Path) -> None:
    main = runpy.run_path(str(repository / "postproc_ext" / "picture.py"))["main"]
    file = tmp_path / "steps.png"
    result = CliRunner().invoke(main, ["--output", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    committed = repository / "postproc_ext" / "steps.png"
    drawn, kept = (cv2.imread(str(picture)).astype(float) for picture in (file, committed))
    assert drawn.shape == kept.shape
    assert abs(drawn - kept).mean() < 1  # gray levels: fonts may differ between machines
    assert committed.stat().st_size < 150_000

"""``report.html``: the static page with a run's content in it."""

import base64
import json
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crosseai.client.records.files import atomic_path
from crosseai.client.report.content import read_content
from crosseai.client.report.truth import compare_boxes, compare_labels

PAGE = "report.html"

_SCRIPTS = ("maps.js", "dom.js", "summary.js", "truth.js", "gallery.js", "viewer.js", "main.js")


def write_report(output: Path, boxes: Path | None = None, labels: Path | None = None) -> Path:
    """Write ``report.html``: summary, gallery and viewer in one page, to be opened from any disk without a network.

    Pictures and maps are those that ``--write html`` left in ``report/``; without them the page shows the tables.
    A content security policy lets the page run its own scripts and load layers, and nothing else.

    Parameters
    ----------
    output
        Folder of a run.
    boxes
        Ground truth like NIH's ``BBox_List_2017.csv``.
    labels
        Labels of whole images like NIH's ``Data_Entry_2017.csv``, for ROC curves.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If the folder is no output of a run, or a file is not what it must be.
    OutputError
        If the page cannot be written.
    """
    content = read_content(output)
    images = content["images"]
    content["truth"] = None if boxes is None else compare_boxes(output, boxes, images["id"])
    content["roc"] = (
        None if labels is None else compare_labels(labels, images["path"], images["probabilities"], content["diseases"])
    )
    content["colour_map"] = _colour_map()
    with atomic_path(output / PAGE) as partial:
        partial.write_text(_page(content), encoding="utf-8")
    return output / PAGE


def _page(content: dict[str, Any]) -> str:
    script = '"use strict";\n' + "\n".join(_static(name) for name in _SCRIPTS)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode("ascii")
    parts = {
        "{{script_sha256}}": digest,
        "{{style}}": _static("style.css"),
        "{{script}}": script,
        # "<" as an escape: no string in it can end the element, or begin another
        "{{content}}": json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    page = _static("page.html")
    for name, part in parts.items():  # the content last: names of files may look like another part
        page = page.replace(name, part, 1)
    return page


def _static(name: str) -> str:
    return (files("crosseai.client.report") / "static" / name).read_text(encoding="utf-8")


def _colour_map() -> list[list[int]]:
    """Inferno as 256 times red, green, blue: perceptually uniform, and black where nothing was found."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)
    colours: list[list[int]] = bgr.reshape(256, 3)[:, ::-1].tolist()
    return colours

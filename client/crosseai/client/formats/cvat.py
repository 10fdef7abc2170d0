"""Annotations for CVAT, in its format "CVAT for images 1.1"."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from crosseai.client.records.files import atomic_path
from crosseai.contract import ImageResult

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write_cvat(path: Path, results: Iterable[ImageResult], classes: Sequence[str]) -> None:
    r"""Write the boxes of all images as one XML file.

    Edges are those of the half-open box in pixels of the original image: CVAT counts from the outer corner of the first
    pixel. The attribute ``probability`` is imported where the task's label has one of that name. Images are named
    relative to the scored directory; a character that XML forbids is written as ``\xHH``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("<annotations>\n<version>1.1</version>\n")
        file.write(_line(_meta(classes)))
        file.writelines(_line(_image(number, result)) for number, result in enumerate(results))
        file.write("</annotations>\n")


def _meta(classes: Sequence[str]) -> ET.Element:
    meta = ET.Element("meta")
    labels = ET.SubElement(ET.SubElement(meta, "task"), "labels")
    for disease in classes:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = disease
        attribute = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
        for name, value in (("name", "probability"), ("mutable", "False"), ("input_type", "text")):
            ET.SubElement(attribute, name).text = value
    return meta


def _image(number: int, result: ImageResult) -> ET.Element:
    name = _NOT_XML.sub(lambda character: f"\\x{ord(character[0]):02x}", result.path)
    image = ET.Element("image", id=str(number), name=name, width=str(result.width), height=str(result.height))
    for finding in result.localized:
        box = ET.SubElement(image, "box", label=finding.disease, source="auto", occluded="0", z_order="0")
        box.attrib.update(zip(("xtl", "ytl", "xbr", "ybr"), map(str, finding.box_image_px), strict=True))
        ET.SubElement(box, "attribute", name="probability").text = str(finding.probability)
    return image


def _line(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode") + "\n"

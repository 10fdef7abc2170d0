"""What ``--write`` names: pictures and DICOM objects of each image, documents and the report of a whole run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from crosseai.client.findings import ScoredImage
from crosseai.client.formats.coco import write_coco
from crosseai.client.formats.cvat import write_cvat
from crosseai.client.formats.dicom_context import DicomObject
from crosseai.client.formats.fhir import write_fhir
from crosseai.client.formats.fiftyone import write_fiftyone
from crosseai.client.formats.label_studio import write_label_studio
from crosseai.client.ground_truth import GroundTruth, read_ground_truth
from crosseai.client.pictures import Picture, fused_maps, write_pictures
from crosseai.client.report import write_layers
from crosseai.contract import BoxParameters, ImageResult, InputError, ModelIdentity, UnsupportedImageError
from crosseai.imaging import Radiograph, draw_overlay

Document: TypeAlias = Literal["coco", "cvat", "fhir", "fiftyone", "label-studio"]

HTML = "html"
"""The report, which is made of the tables and of each image's layers."""

BURNED_IN = "burned-in annotation"
"""The warning of an image that says that text is burned into its pixels."""

NOT_DICOM = (".png", ".jpg", ".jpeg")
"""Endings of files that no DICOM object can refer to."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run writes beside its tables, and the ground truth that is shown in it where there is one."""

    pictures: tuple[Picture, ...] = ()
    dicom: tuple[DicomObject, ...] = ()
    documents: tuple[Document, ...] = ()
    html: bool = False
    truth: GroundTruth | None = None

    @property
    def names(self) -> list[str]:
        """The names that ``--write`` takes."""
        return [*self.pictures, *self.dicom, *self.documents, *([HTML] if self.html else [])]

    @property
    def of_images(self) -> bool:
        """Whether anything is written that needs an image's pixels."""
        return bool(self.pictures or self.dicom or self.html)

    def check_files(self, names: Iterable[str]) -> None:
        """Refuse files that something wanted cannot be made of, before any work is done.

        Raises
        ------
        InputError
            If DICOM objects are wanted, and a file is none by its name.
        """
        found = next((name for name in names if name.lower().endswith(NOT_DICOM)), None) if self.dicom else None
        if found is not None:
            raise InputError(f"write: {', '.join(self.dicom)} can only be made of DICOM files, found {found}")


def parse_outputs(names: Iterable[str], ground_truth: Path | None = None) -> Outputs:
    """The outputs of these names, each once and in one order.

    Parameters
    ----------
    names
        As ``--write`` takes them.
    ground_truth
        File like NIH's ``BBox_List_2017.csv``.

    Raises
    ------
    InputError
        If a name is unknown, or the file is not what it must be.
    """
    wanted = set(names)
    pictures, objects, documents = (get_args(kind) for kind in (Picture, DicomObject, Document))
    known = {HTML, *pictures, *objects, *documents}
    if not wanted <= known:
        raise InputError(f"write: expected {', '.join(sorted(known))}; found {', '.join(sorted(wanted - known))}")
    return Outputs(
        pictures=tuple(name for name in pictures if name in wanted),
        dicom=tuple(name for name in objects if name in wanted),
        documents=tuple(name for name in documents if name in wanted),
        html=HTML in wanted,
        truth=None if ground_truth is None else read_ground_truth(ground_truth),
    )


def write_image_outputs(
    image: ScoredImage,
    radiograph: Radiograph,
    output: Path,
    outputs: Outputs,
    boxes: BoxParameters,
    model: ModelIdentity,
) -> None:
    """Write what is wanted of one image.

    No picture is made of an image that says that text is burned into its pixels, as that may name the patient, unless
    identifiers were asked for when it was read. DICOM objects name the patient anyway.

    Parameters
    ----------
    image, radiograph
        The result, and the original pixels.
    output
        Folder of the run.
    outputs
        What is wanted.
    boxes
        Parameters of the boxes, which panels name.
    model
        The model, which DICOM objects name.

    Raises
    ------
    UnsupportedImageError
        If no DICOM object can refer to the file.
    OutputError
        If something cannot be written.
    """
    showable = BURNED_IN not in radiograph.warnings or bool(radiograph.identifiers)
    if outputs.pictures and showable:
        write_pictures(image, radiograph, output, outputs.pictures, boxes, outputs.truth)
    if outputs.html and showable:
        write_layers(image, radiograph, output)
    if outputs.dicom:
        if radiograph.metadata.source_format != "dicom":
            found = radiograph.metadata.source_format
            raise UnsupportedImageError(f"{', '.join(outputs.dicom)}: expected a DICOM file, found {found}")
        from crosseai.client.formats.dicom import write_dicom_objects  # imports highdicom, which most runs do not need

        result = image.result
        overlay = partial(draw_overlay, radiograph, result.findings, model_version=result.model_version)
        fused = partial(fused_maps, image, boxes)
        write_dicom_objects(image.location, output, outputs.dicom, result, model, overlay, fused)


def write_documents(
    documents: Iterable[Document],
    results: Iterable[ImageResult],
    output: Path,
    model: ModelIdentity,
    classes: Sequence[str],
) -> None:
    """Write ``coco.json``, ``cvat.xml``, ``fhir.ndjson``, ``fiftyone.json``, ``label_studio.json``, as wanted.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    for document in documents:
        if document == "coco":
            write_coco(output / "coco.json", results, classes, model.version)
        elif document == "cvat":
            write_cvat(output / "cvat.xml", results, classes)
        elif document == "fhir":
            write_fhir(output / "fhir.ndjson", results)
        elif document == "fiftyone":
            write_fiftyone(output / "fiftyone.json", results, classes)
        else:
            write_label_studio(output / "label_studio.json", results)

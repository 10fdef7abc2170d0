"""HL7 FHIR R4: one DiagnosticReport an image, with an Observation for every disease."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from crosseai.client.formats.codes import snomed_ct
from crosseai.client.records.files import atomic_path
from crosseai.contract import RESEARCH_NOTICE, Finding, ImageResult

IMAGE_SYSTEM = "urn:crosseai:image-id"
"""System of the identifiers that name an image by the hash of its file."""

_CHEST_XRAY = {"coding": [{"system": "http://loinc.org", "code": "30745-4", "display": "Chest X-ray study"}]}
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


def write_fhir(path: Path, results: Iterable[ImageResult]) -> None:
    """Write one Bundle of type ``collection`` a line (NDJSON): report, device, and an Observation for each disease.

    An Observation's value is the probability; its interpretation says whether that reaches the operating point; its
    components are the edges of the box, in pixels of the original image, half-open. Ids depend on the image and the
    model version alone, so that a second import replaces the first. Reports are preliminary and name no patient: the
    image is named by the hash of its file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_bundle(result)) + "\n" for result in results)


def _bundle(result: ImageResult) -> dict[str, Any]:
    image = {"identifier": {"system": IMAGE_SYSTEM, "value": result.image_id}}
    device = {
        "resourceType": "Device",
        "deviceName": [{"name": "CrossEAI", "type": "model-name"}],
        "version": [{"value": result.model_version}],
        "note": [{"text": RESEARCH_NOTICE}],
    }
    device_url = _url(result, "device")
    observations = {
        _url(result, disease): _observation(result, disease, image, device_url) for disease in result.probabilities
    }
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "code": _CHEST_XRAY,
        "result": [{"reference": url} for url in observations],
        "conclusion": f"CrossEAI model version {result.model_version}. {RESEARCH_NOTICE}",
    }
    resources = {_url(result, "report"): report, device_url: device, **observations}
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in resources.items()],
    }


def _url(result: ImageResult, part: str) -> str:
    return uuid5(NAMESPACE_URL, f"{IMAGE_SYSTEM}:{result.image_id}:{result.model_version}:{part}").urn


def _observation(result: ImageResult, disease: str, image: dict[str, Any], device_url: str) -> dict[str, Any]:
    coded = snomed_ct(disease)
    code: dict[str, Any] = {"text": disease}
    if coded is not None:
        code["coding"] = [{"system": "http://snomed.info/sct", "code": coded[0], "display": coded[1]}]
    call = ("POS", "Positive") if result.positive[disease] else ("NEG", "Negative")
    observation = {
        "resourceType": "Observation",
        "status": "preliminary",
        "code": code,
        "focus": [image],
        "device": {"reference": device_url},
        "valueQuantity": {
            "value": round(result.probabilities[disease], 6),
            "unit": "probability",
            "system": "http://unitsofmeasure.org",
            "code": "1",
        },
        "interpretation": [{"coding": [{"system": _INTERPRETATION, "code": call[0], "display": call[1]}]}],
    }
    boxes = [finding for finding in result.localized if finding.disease == disease]
    if boxes:
        observation["component"] = [
            component for number, finding in enumerate(boxes, 1) for component in _edges(number, finding)
        ]
    return observation


def _edges(number: int, finding: Finding) -> list[dict[str, Any]]:
    return [
        {
            "code": {"text": f"box {number} {edge}"},
            "valueQuantity": {
                "value": value,
                "unit": "pixels",
                "system": "http://unitsofmeasure.org",
                "code": "{pixels}",
            },
        }
        for edge, value in zip(("x0", "y0", "x1", "y1"), finding.box_image_px, strict=True)
    ]

"""SNOMED CT codes of the findings, for the formats of hospitals."""

from collections.abc import Mapping

from crosseai.contract import canonical_label

SNOMED_CT: Mapping[str, tuple[str, str]] = {
    "Atelectasis": ("46621007", "Atelectasis"),
    "Cardiomegaly": ("8186001", "Cardiomegaly"),
    "Effusion": ("60046008", "Pleural effusion"),
    "Infiltration": ("409609008", "Pulmonary infiltrate"),
    "Mass": ("309529002", "Mass of lung"),
    "Nodule": ("427359005", "Solitary nodule of lung"),
    "Pneumonia": ("233604007", "Pneumonia"),
    "Pneumothorax": ("36118008", "Pneumothorax"),
}
"""Code and meaning of each disease of ChestX-ray8. A disease of another label set has no code here: it is written as
text."""


def snomed_ct(disease: str) -> tuple[str, str] | None:
    """Code and meaning of a disease, or None where none is known."""
    return SNOMED_CT.get(canonical_label(disease))

"""Colours of the diseases."""

import zlib
from typing import TypeAlias

from crosseai.contract import CHESTXRAY8

Rgb: TypeAlias = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness. Their black would
# vanish in a radiograph and is white here.
_OKABE_ITO: tuple[Rgb, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
    (255, 255, 255),  # white
)


def disease_colour(disease: str) -> Rgb:
    """The colour of a disease in every picture: fixed for ChestX-ray8, else derived from the name."""
    known = CHESTXRAY8.index(disease) if disease in CHESTXRAY8 else zlib.crc32(disease.encode())
    return _OKABE_ITO[known % len(_OKABE_ITO)]

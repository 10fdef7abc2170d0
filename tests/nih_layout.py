"""A tiny data set in the NIH layout, quick to write and easy to learn: stand-ins for tests of the machinery."""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from crosseai.contract import CHESTXRAY8, NO_FINDING

COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID")


def write_listing(folder: Path, rows: Sequence[Sequence[object]], columns: Sequence[str] = COLUMNS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "Data_Entry_2017.csv"
    with listing.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return listing


def write_images(folder: Path, *names: str) -> None:
    """Gray PNG files, whatever their names."""
    folder.mkdir(parents=True, exist_ok=True)
    _, png = cv2.imencode(".png", np.full((40, 50), 90, np.uint8))
    for name in names:
        (folder / name).write_bytes(png.tobytes())


def write_data_set(folder: Path, *, patients: int = 30, images_each: int = 3, side: int = 64, seed: int = 0) -> Path:
    """Noise with one bright square a disease, each in its own cell of a 3 x 3 grid."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        for follow_up in range(images_each):
            name = f"{patient:08d}_{follow_up:03d}.png"
            diseases = [c for c in range(len(CHESTXRAY8)) if random.random() < 0.3]
            image = random.normal(80, 20, (side, side))
            for c in diseases:
                y, x = (np.array(divmod(c, 3)) * side / 3 + side / 12).astype(int)
                image[y : y + side // 6, x : x + side // 6] += 90
            cv2.imwrite(str(folder / "images" / name), image.clip(0, 255).astype(np.uint8))
            rows.append((name, "|".join(CHESTXRAY8[c] for c in diseases) or NO_FINDING, follow_up, patient))
    write_listing(folder, rows)
    return folder

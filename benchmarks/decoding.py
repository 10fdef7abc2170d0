"""How fast are radiographs read? Writes ``benchmarks/decoding.md``.

    python -m benchmarks.decoding

Reading a file and preprocessing it for the model, against the least that must be done: ``cv2.imread`` and
``cv2.resize`` for a PNG, ``np.fromfile`` and ``cv2.resize`` for uncompressed DICOM. Then every DICOM transfer syntax
against uncompressed. The calls of a table take turns, and each time is the least of many, so that a busy machine
disturbs the ratios little.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import openjpeg
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from crosseai.contract import ModelSpec
from crosseai.imaging import preprocess, read_radiograph
from crosseai.training.phantoms import draw_anatomy, draw_phantom

ROWS, COLUMNS, BITS = 2500, 2048, 12
SIDE = 224
ROUNDS = 7

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def phantom() -> tuple[npt.NDArray[np.uint8], Pixels]:
    """One phantom: 1024 x 1024 of 8 bits, and as a detector stores it, 2500 x 2048 of 12 bits with noise."""
    rng = np.random.default_rng(0)
    stored = draw_phantom(draw_anatomy(rng), ["Mass"], rng, size=1024).pixels
    small = cv2.normalize(stored, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
    large = cv2.resize(small.astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC) * 15
    return small, (large + rng.normal(100, 6, large.shape)).clip(0, 4095).astype(np.uint16)


def run_length_encoded(pixels: Pixels) -> bytes:
    """A frame of RLE Lossless."""
    return RLELosslessEncoder.encode(
        pixels.tobytes(), rows=ROWS, columns=COLUMNS, samples_per_pixel=1, bits_allocated=16, bits_stored=16,
        pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
        encoding_plugin="pydicom",
    )  # fmt: skip


ENCODERS: dict[str, Callable[[Pixels], bytes] | None] = {
    uid.ExplicitVRLittleEndian: None,
    uid.ImplicitVRLittleEndian: None,
    uid.ExplicitVRBigEndian: None,
    uid.DeflatedExplicitVRLittleEndian: None,
    uid.RLELossless: run_length_encoded,
    uid.JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95),
    uid.JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
    uid.JPEGLossless: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=7, bitspersample=12),
    uid.JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=12),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(pixels, level=2),
    uid.JPEG2000Lossless: lambda pixels: bytes(openjpeg.encode(pixels, bits_stored=BITS)),
    uid.JPEG2000: lambda pixels: bytes(openjpeg.encode(pixels, bits_stored=BITS, compression_ratios=[8])),
}


def dicom(pixels: Pixels, syntax: str) -> bytes:
    """Content of a file."""
    encode, bits = ENCODERS[syntax], min(BITS, 8 * pixels.itemsize)
    native = pixels.astype(">u2") if syntax == uid.ExplicitVRBigEndian else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "2.25.1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PixelRepresentation = "MONOCHROME2", 1, 0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    dataset.PixelData = native.tobytes() if encode is None else encapsulate([encode(pixels)])
    dataset["PixelData"].VR = "OW" if encode is None else "OB"
    dataset["PixelData"].is_undefined_length = encode is not None
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def least_ms(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least time of each call in milliseconds, the calls taken in turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], (time.perf_counter() - start) * 1e3)
    return least


def bare_rows(folder: Path, small: npt.NDArray[np.uint8], large: Pixels) -> list[str]:
    """Markdown rows: file, the least that must be done, ours, ratio."""
    spec = ModelSpec(input_size=SIDE)
    png, raw, native = folder / "small.png", folder / "large.raw", folder / "large.dcm"
    cv2.imwrite(str(png), small)
    large.tofile(raw)
    native.write_bytes(dicom(large, uid.ExplicitVRLittleEndian))

    def resized(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    calls: dict[str, Callable[[], npt.NDArray[np.generic]]] = {
        "png bare": lambda: resized(cv2.imread(str(png), cv2.IMREAD_GRAYSCALE)),
        "png": lambda: preprocess(read_radiograph(png), spec),
        "dicom bare": lambda: resized(np.fromfile(raw, np.uint16).reshape(large.shape)),
        "dicom": lambda: preprocess(read_radiograph(native), spec),
    }
    if not np.array_equal(calls["png bare"](), calls["png"]()[0]):
        raise SystemExit("an 8-bit PNG is not preprocessed as OpenCV does")
    ms = least_ms(dict(calls))
    return [
        f"| {title} | {ms[f'{kind} bare']:.1f} | {ms[kind]:.1f} | {ms[kind] / ms[f'{kind} bare']:.2f} |"
        for kind, title in (
            ("png", "PNG, 1024 x 1024, 8 bits"),
            ("dicom", f"DICOM, uncompressed, {ROWS} x {COLUMNS}, {BITS} bits"),
        )
    ]


def syntax_rows(folder: Path, large: Pixels) -> list[str]:
    """Markdown rows: transfer syntax, size, milliseconds, ratio to uncompressed."""
    paths = {}
    for number, syntax in enumerate(ENCODERS):
        paths[syntax] = folder / f"{number}.dcm"
        pixels = (large >> (BITS - 8)).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else large
        paths[syntax].write_bytes(dicom(pixels, syntax))
    ms = least_ms({syntax: lambda path=path: read_radiograph(path) for syntax, path in paths.items()})
    native = ms[uid.ExplicitVRLittleEndian]
    return [
        f"| {uid.UID(syntax).name} | {path.stat().st_size / 1e6:.1f} | {ms[syntax]:.0f} | {ms[syntax] / native:.1f} |"
        for syntax, path in paths.items()
    ]


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".md"))
def main(output: Path) -> None:
    """Measure and write the tables."""
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    small, large = phantom()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            "# Speed of reading radiographs",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores, load average {load:.1f} at the start,"
            f" OpenCV {cv2.__version__}, imagecodecs {imagecodecs.__version__}. Made by `benchmarks/decoding.py`.",
            "",
            f"## Read and preprocess to {SIDE} x {SIDE}, one thread, milliseconds",
            "",
            "| file | bare read and resize | `read_radiograph`, `preprocess` | ratio |",
            "|---|---|---|---|",
            *bare_rows(Path(folder), small, large),
            "",
            f"## `read_radiograph` by transfer syntax, {ROWS} x {COLUMNS}, noise, {BITS} bits (JPEG Baseline: 8)",
            "",
            "| transfer syntax | MB | ms | against uncompressed |",
            "|---|---|---|---|",
            *syntax_rows(Path(folder), large),
        ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()

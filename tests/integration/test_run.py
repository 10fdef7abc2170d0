"""``crosseai-client run`` against the real embedded Triton."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import psutil
import pyarrow.parquet as pq
import pytest

from crosseai.client import score_directory
from crosseai.client.servers.embedded import embedded_server
from crosseai.contract import BoxParameters, InputError, ModelSpec, canonical_label
from crosseai.imaging import box_to_image_px, preprocess, read_radiograph
from crosseai.postproc import localize
from crosseai.training.phantoms import write_phantoms

MANY = 400
RUN = (sys.executable, "-m", "crosseai.client.cli", "run")


@pytest.fixture(scope="module")
def server(small_model: Path) -> Iterator[str]:
    """gRPC address of a server with the small model."""
    with embedded_server(str(small_model)) as address:
        yield address


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, count=12, seed=6, image_format="both")
    return folder


def rows(output: Path, table: str = "predictions") -> list[dict]:
    return pq.read_table(output / f"{table}.parquet").to_pylist()


def failures(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]


def assert_alike(one: dict, other: dict) -> None:
    """Equal rows, but for the last bits of numbers, which depend on the images that share a batch."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name


def process_tree(root: int) -> set[int]:
    """Ids of a process and its descendants."""
    return {root, *(child.pid for child in psutil.Process(root).children(recursive=True))}


def leftovers(tree: set[int]) -> set[str]:
    """What still exists of a tree of processes: processes, and shared-memory regions named after one of them."""
    regions = {path.name for path in Path("/dev/shm").glob("crosseai-*") if int(path.name.split("-")[1]) in tree}
    return regions | {f"process {pid}" for pid in tree if is_alive(pid)}


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie is gone, and waits for whoever inherited it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nothing_is_left(tree: set[int]) -> None:
    """The kernel and the server's guardian may take a moment."""
    deadline = time.monotonic() + 60
    while leftovers(tree):
        assert time.monotonic() < deadline, leftovers(tree)
        time.sleep(0.1)


@pytest.mark.parametrize("explain", ["top:2", "positive"])
def test_results_equal_a_direct_call(
    server: str, small_model: Path, phantoms: Path, tmp_path: Path, explain: str
) -> None:
    """Probabilities, boxes and scores are those of ONNX Runtime and the box algorithm called by hand, image by image.

    For positive diseases, too, which the client asks for in a second request, several images at a time.
    """
    summary = score_directory(phantoms / "images", tmp_path, server=server, explain=explain, batch_size=5)
    spec, session = ModelSpec.load(small_model), ort.InferenceSession(small_model / "model.onnx")
    found = {(row["image_id"], row["disease"]): row for row in rows(tmp_path, "boxes")}
    assert summary.counts.scored == len(rows(tmp_path)) == 12
    for row in rows(tmp_path):
        radiograph = read_radiograph(phantoms / "images" / row["path"])
        feed = {"image": preprocess(radiograph, spec)[None], "targets": np.full((1, 2), -1, np.int64)}
        if explain == "positive":
            (logits,) = session.run(["logits"], feed)
            feed["targets"] = np.argwhere(spec.positive(spec.probabilities(logits))[0]).T
            if not feed["targets"].size:
                continue
        names = ["logits", "explained", "heatmaps", "gradient_maps"]
        logits, explained, heatmaps, gradient_maps = session.run(names, feed)
        calibrated = logits[0].astype(np.float64) * spec.calibration_slopes + spec.calibration_intercepts
        probabilities = 1 / (1 + np.exp(-calibrated))
        np.testing.assert_allclose([row[f"p_{c}"] for c in spec.classes], probabilities, rtol=1e-5)
        boxes, scores = localize(heatmaps[0], gradient_maps[0], **spec.boxes.keywords())
        for c, box, score in zip(explained[0], boxes, scores, strict=True):
            if score > 0:
                one = found.pop((row["image_id"], spec.classes[c]))
                expected = box_to_image_px(tuple(box.tolist()), spec.input_size, row["height"], row["width"])
                assert (one["x0"], one["y0"], one["x1"], one["y1"]) == expected
                assert one["score"] == pytest.approx(score, rel=1e-4)
    assert not found
    assert summary.counts.boxes > 0


def test_explain_choices(server: str, phantoms: Path, tmp_path: Path) -> None:
    """Every policy gives the same probabilities, and explains the classes it names."""
    labels = phantoms / "BBox_List_2017.csv"
    probabilities, boxed = {}, {}
    for explain in ("none", "all", "positive", "top:3", str(labels)):
        output = tmp_path / Path(explain).stem.replace(":", "")
        score_directory(phantoms / "images", output, server=server, explain=explain)
        probabilities[explain] = [[row[f"p_{c}"] for c in ModelSpec().classes] for row in rows(output)]
        boxed[explain] = {(row["image_id"], row["disease"]) for row in rows(output, "boxes")}
    for other in probabilities.values():
        np.testing.assert_allclose(other, probabilities["none"], rtol=1e-5)
    assert boxed["none"] == set()
    positive = {
        (row["image_id"], c) for row in rows(tmp_path / "positive") for c in ModelSpec().classes if row[f"positive_{c}"]
    }
    assert boxed["positive"] == positive & boxed["all"]
    identity = {row["path"]: row["image_id"] for row in rows(tmp_path / "none")}
    named = {tuple(line.split(",")[:2]) for line in labels.read_text().splitlines()[1:]}
    assert boxed[str(labels)] == {(identity[name], canonical_label(disease)) for name, disease in named} & boxed["all"]


def test_monochrome1_and_monochrome2_give_the_same_boxes(server: str, phantoms: Path, tmp_path: Path) -> None:
    import pydicom

    images = tmp_path / "images"
    images.mkdir()
    for number, source in enumerate(sorted((phantoms / "dicom").glob("*.dcm"))[:6]):
        dataset = pydicom.dcmread(source)
        dataset.save_as(images / f"{number}_as_is.dcm")
        peak = 2**dataset.BitsStored - 1
        dataset.PixelData = (peak - dataset.pixel_array).astype(np.uint16).tobytes()
        if "WindowCenter" in dataset:
            dataset.WindowCenter = peak - float(dataset.WindowCenter) + 1
        other = {
            "MONOCHROME1": "MONOCHROME2",
            "MONOCHROME2": "MONOCHROME1",
            "INVERSE": "IDENTITY",
            "IDENTITY": "INVERSE",
        }
        dataset.PhotometricInterpretation = other[dataset.PhotometricInterpretation]
        dataset.PresentationLUTShape = other[dataset.PresentationLUTShape]
        dataset.save_as(images / f"{number}_inverted.dcm")
    score_directory(images, tmp_path / "out", server=server, explain="all")
    by_path = {row["path"]: row["image_id"] for row in rows(tmp_path / "out")}
    assert len(by_path) == 12
    boxes: dict[str, list[tuple]] = {}
    for row in rows(tmp_path / "out", "boxes"):
        box = tuple(row[name] for name in ("disease", "x0", "y0", "x1", "y1"))
        boxes.setdefault(row["image_id"], []).append(box)
    for number in range(6):
        assert boxes[by_path[f"{number}_as_is.dcm"]] == boxes[by_path[f"{number}_inverted.dcm"]]


def test_pictures_are_written(server: str, phantoms: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for source in sorted((phantoms / "images").iterdir())[:2]:
        shutil.copy(source, few)
    score_directory(few, tmp_path / "out", server=server, explain="top:1", write=("overlay", "panel"))
    for row in rows(tmp_path / "out"):
        overlay = cv2.imread(str(tmp_path / "out/overlays" / f"{row['image_id']}.png"))
        assert overlay.shape[:2] == (row["height"], row["width"])
        (panel,) = (tmp_path / "out/panels").glob(f"{row['image_id']}_*.png")
        assert cv2.imread(str(panel)).std() > 10


def test_a_bad_file_is_one_line_and_the_rest_is_scored(server: str, phantoms: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(phantoms / "images", images)
    good = sorted(images.iterdir())
    (images / "empty.png").touch()
    (images / "truncated.png").write_bytes(good[0].read_bytes()[:2000])
    (images / "text.dcm").write_text("not an image")
    shutil.copy(good[0], images / "copy of the first.png")
    finished = subprocess.run(
        [*RUN, images, "--output", tmp_path / "out", "--server", server, "--write", "overlay,panel"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1, finished.stderr
    assert "3 failed" in finished.stdout
    assert {row["path"] for row in rows(tmp_path / "out")} == {p.name for p in good} | {"copy of the first.png"}
    assert {f["path"]: f["stage"] for f in failures(tmp_path / "out")} == dict.fromkeys(
        ("empty.png", "truncated.png", "text.dcm"), "read"
    )
    assert "model version 1" in finished.stdout
    assert "not a medical device" in finished.stdout


@pytest.mark.parametrize("there", [True, False], ids=["a model", "no model"])
def test_standard_error_is_json_alone(there: bool, small_model: Path, phantoms: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    good = min((phantoms / "images").glob("*.png"))
    shutil.copy(good, images)
    (images / "truncated.png").write_bytes(good.read_bytes()[:2000])
    (images / "cut.jpg").write_bytes(cv2.imencode(".jpg", cv2.imread(str(good)))[1].tobytes()[:2000] + b"\xff\xd9")
    model = small_model if there else tmp_path / "absent"
    finished = subprocess.run(
        [*RUN, images, "--output", tmp_path / "out", "--model", model, "--log-format", "json"],
        check=False,
        capture_output=True,
        text=True,
    )
    said = [json.loads(line) for line in finished.stderr.splitlines()]
    messages = [line["message"] for line in said if line["event"] == "log"]
    if there:
        assert (finished.returncode, len(failures(tmp_path / "out"))) == (1, 2)
        assert messages[0].startswith("Triton is ready at ")
        assert messages[-1] == "crosseai-serve has stopped"
        assert "progress" in {line["event"] for line in said}
    else:
        assert finished.returncode == 2
        assert messages[-1] == "error: the embedded server did not start; its reason is above"
        assert str(model) in messages[-2]


def test_a_second_run_continues_and_a_changed_one_is_refused(server: str, phantoms: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    shutil.copytree(phantoms / "images", images)
    score_directory(images, output, server=server, explain="none")
    before = rows(output)
    shutil.copy(images / before[0]["path"], images / "zz_new.png")
    summary = score_directory(images, output, server=server, explain="none")
    assert summary.scored_now == 1
    assert rows(output)[:-1] == before
    assert_alike(rows(output)[-1], before[0] | {"path": "zz_new.png"})
    assert score_directory(images, output, server=server, explain="none").scored_now == 0
    with pytest.raises(InputError, match="explain: 'none' -> 'all'"):
        score_directory(images, output, server=server, explain="all")
    with pytest.raises(InputError, match=r"boxes\.t"):
        score_directory(images, output, server=server, explain="none", preset="scalp")
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["counts"]["scored"] == 13
    assert [run["files"] for run in manifest["runs"]] == [12, 1]  # not the one that found nothing to do
    assert len(manifest["configuration"]["model_sha256"]) == 64


def test_nobody_at_the_address(phantoms: Path, tmp_path: Path, unused_port: int) -> None:
    command = [*RUN, phantoms / "images", "--output", tmp_path / "out", "--server", f"127.0.0.1:{unused_port}"]
    finished = subprocess.run([*command, "--wait", "1"], check=False, capture_output=True, text=True)
    assert finished.returncode == 3
    assert f"127.0.0.1:{unused_port}" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_model_that_is_not_there(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did not start"):
        score_directory(phantoms / "images", tmp_path / "out", model=str(tmp_path / "absent"))


@pytest.fixture(scope="module")
def many(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough files that a run can be caught in the middle."""
    folder = tmp_path_factory.mktemp("many")
    sources = sorted((phantoms / "images").iterdir())
    for number in range(MANY):
        (folder / f"{number:04d}.png").hardlink_to(sources[number % len(sources)])
    return folder


@pytest.fixture(scope="module")
def whole(server: str, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of an undisturbed run."""
    output = tmp_path_factory.mktemp("whole")
    score_directory(many, output, server=server, explain="top:1")
    return output


def start_and_wait_for_results(images: Path, output: Path, model: Path, *options: object) -> "subprocess.Popen[str]":
    """A run in its own session, caught once its first results are on disk."""
    process = subprocess.Popen(
        [*map(str, (*RUN, images, "--output", output, "--model", model, "--explain", "top:1", *options))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob(".journal/*.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_usable_and_continues(
    signal_number: signal.Signals, small_model: Path, many: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start_and_wait_for_results(many, output, small_model)
    tree = process_tree(process.pid)
    assert leftovers(tree)
    os.killpg(process.pid, signal_number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    partial = rows(output)
    assert 0 < len(partial) < MANY
    assert [row["path"] for row in partial] == [f"{n:04d}.png" for n in range(len(partial))]
    assert json.loads((output / "manifest.json").read_text())["status"] == "partial"
    assert_nothing_is_left(tree)
    score_directory(many, output, model=str(small_model), explain="top:1")
    for table in ("predictions", "boxes"):
        assert rows(output, table) == rows(whole, table)


def test_interrupted_while_the_server_starts(small_model: Path, phantoms: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*RUN, phantoms / "images", "--output", tmp_path / "out", "--model", small_model],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(tree := process_tree(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert_nothing_is_left(tree)


def triton_of(process: "subprocess.Popen[str]") -> psutil.Process:
    (server,) = (p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == "tritonserver")
    return server


def test_a_killed_server_is_started_again_and_nothing_is_lost(
    small_model: Path, many: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start_and_wait_for_results(many, output, small_model)
    tree = process_tree(process.pid)
    triton_of(process).kill()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "is started again" in stderr
    assert_nothing_is_left(tree)
    for table in ("predictions", "boxes"):
        assert rows(output, table) == rows(whole, table)


def test_a_killed_server_ends_a_run_that_does_not_wait(small_model: Path, many: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start_and_wait_for_results(many, output, small_model, "--wait", 0)
    tree = process_tree(process.pid)
    assert leftovers(tree)
    triton_of(process).kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "server" in stderr
    assert "Traceback" not in stderr
    assert 0 < len(rows(output)) < MANY
    assert_nothing_is_left(tree)


def test_a_killed_client_takes_the_server_along(small_model: Path, many: Path, tmp_path: Path) -> None:
    process = start_and_wait_for_results(many, tmp_path / "out", small_model)
    tree = process_tree(process.pid)
    process.kill()
    process.communicate(timeout=60)
    assert_nothing_is_left(tree)


def test_real_radiographs(real_model: Path, shared_data: Path, tmp_path: Path) -> None:
    """All real images and DICOM files: a row for every good radiograph, a line for everything else."""
    folder = tmp_path / "archive"
    shutil.copytree(shared_data / "nih" / "images", folder / "nih")
    shutil.copytree(shared_data / "dicom", folder / "dicom")
    for part in (folder, *folder.rglob("*")):
        part.chmod(0o755)
    command = [*RUN, folder, "--output", tmp_path / "out", "--model", real_model, "--explain", "top:1"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 1, finished.stderr
    good = {f"nih/{p.name}" for p in (folder / "nih").iterdir()} | {
        f"dicom/chest/{p.name}" for p in (folder / "dicom/chest").iterdir()
    }
    every = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert len(good) == 91
    assert {row["path"] for row in rows(tmp_path / "out")} == good
    failed = failures(tmp_path / "out")
    assert sorted(f["path"] for f in failed) == sorted(every - good)
    assert all(f["stage"] == "read" and len(f["message"]) > 20 for f in failed)
    assert {f["error"] for f in failed} == {"UnreadableImageError", "UnsupportedImageError"}
    for box in rows(tmp_path / "out", "boxes"):
        assert box["x0"] < box["x1"]
        assert box["y0"] < box["y1"]
    written = "".join(
        (tmp_path / "out" / name).read_text() for name in ("errors.jsonl", "manifest.json", "predictions.csv")
    )
    for identifier in patient_identifiers(folder):
        assert identifier not in written + finished.stdout + finished.stderr


def patient_identifiers(folder: Path) -> set[str]:
    """Names, ids and birth dates in the DICOM files, long enough to be told from other text."""
    import pydicom

    found: set[str] = set()
    for file in (folder / "dicom").rglob("*"):
        if file.is_file() and file.suffix != ".csv":
            dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
            values = (str(dataset.get(name, "")) for name in ("PatientName", "PatientID", "PatientBirthDate"))
            found |= {value for value in values if len(value) > 5}
    return found


def test_default_parameters_are_the_papers() -> None:
    assert BoxParameters().keywords().items() >= {"t": 0.30, "threshold": 0.35, "max_candidates": 8}.items()

"""An archive on S3, served by moto over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pydicom
import pytest
from moto.server import ThreadedMotoServer

from crosseai.client import score_directory
from crosseai.client.sources.index import write_index
from crosseai.training.phantoms import write_phantoms


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        filesystem, path = pa_fs.FileSystem.from_uri(f"s3://hospital?{query}")
        filesystem.create_dir(path)
        yield f"s3://hospital/archive?{query}"
    finally:
        server.stop()


def test_an_archive_on_s3_is_scored_as_a_directory(bucket: str, tiny_server: str, tmp_path: Path) -> None:
    """Tables and DICOM objects are the same; an object that was deleted is a failure."""
    write_phantoms(tmp_path / "phantoms", count=6, seed=3, size=128, image_format="dicom")
    images = tmp_path / "phantoms" / "dicom"
    next(images.iterdir()).rename(images / "an odd?name#.dcm")
    pa_fs.copy_files(str(images), bucket)
    write_index(bucket, tmp_path / "m.parquet")
    options = {"server": tiny_server, "explain": "top:1", "write": ["dicom-sr"]}
    for source, output in ((images, "local"), (tmp_path / "m.parquet", "s3")):
        assert score_directory(source, tmp_path / output, **options).counts.scored == 6
    for table in ("predictions", "boxes"):
        local, s3 = (pq.read_table(tmp_path / output / f"{table}.parquet") for output in ("local", "s3"))
        assert s3.equals(local)
    reports = sorted((tmp_path / "local" / "dicom-sr").iterdir())
    assert reports
    for report in reports:
        found = pydicom.dcmread(tmp_path / "s3" / "dicom-sr" / report.name)
        assert found.PatientID == pydicom.dcmread(report).PatientID

    filesystem, path = pa_fs.FileSystem.from_uri(bucket)
    filesystem.delete_file(f"{path}/an odd?name#.dcm")
    counts = score_directory(tmp_path / "m.parquet", tmp_path / "later", **options).counts
    assert (counts.scored, counts.failed) == (5, 1)
    assert '"stage": "read"' in (tmp_path / "later" / "errors.jsonl").read_text()

from pathlib import Path

import fsspec
import pytest

from crosseai.client.sources.storage import locate, open_file, open_filesystem, read_file
from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError


def test_locations() -> None:
    assert locate("/data", "a/b.png") == "/data/a/b.png"
    assert locate("/data", "/elsewhere/b.png") == "/elsewhere/b.png"
    assert locate("/data", "s3://bucket/b.png") == "s3://bucket/b.png"
    assert locate("s3://bucket/x/?endpoint_override=h:1", "a b?#.png") == (
        "s3://bucket/x/a%20b%3F%23.png?endpoint_override=h:1"
    )
    assert open_filesystem("s3://bucket/x/a%20b%3F.png?endpoint_override=h:1&region=r")[1] == "bucket/x/a b?.png"


def test_content_by_path_and_by_url(tmp_path: Path) -> None:
    odd = tmp_path / "a b?#%20.png"
    odd.write_bytes(b"content")
    memory = fsspec.filesystem("memory")
    memory.pipe("/folder/a b?#%20.png", b"content")
    urls = [locate(root, odd.name) for root in (str(tmp_path), f"file://{tmp_path}", "fsspec+memory://folder")]
    for url in urls:
        assert read_file(url) == b"content"
        with open_file(url) as file:
            file.seek(3)
            assert file.read(3) == b"ten"
        with pytest.raises(UnreadableImageError):
            read_file(f"{url}.absent")
        with pytest.raises(UnreadableImageError), open_file(f"{url}.absent"):
            pass
    memory.rm("/folder", recursive=True)


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**30)
    for location in (str(tmp_path / "huge"), f"file://{tmp_path}/huge"):
        with pytest.raises(UnsupportedImageError, match="expected at most 285212672 bytes, found 1073741824"):
            read_file(location)


def test_urls_that_nothing_opens() -> None:
    for url in ("nosuch://host/a", "fsspec+nosuch://host/a"):
        with pytest.raises(InputError, match="cannot be opened"):
            read_file(url)

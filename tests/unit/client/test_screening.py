import os
import signal
from functools import partial

from crosseai.client.cluster.screening import deadly, try_decoding
from crosseai.client.sources.storage import ImageFile
from crosseai.imaging import DEFAULT_POLICY


def die_of_some(file: ImageFile) -> None:
    if "bad" in file.name:
        os.kill(os.getpid(), signal.SIGSEGV)


def test_the_files_that_end_a_process_are_found() -> None:
    files = [ImageFile(name, name) for name in ("a", "bad 1", "bad 2", "b", "bad 3")]
    assert [file.name for file in deadly(files, die_of_some)] == ["bad 1", "bad 2", "bad 3"]


def test_a_file_that_cannot_be_read_is_not_deadly() -> None:
    assert list(deadly([ImageFile("absent", "absent")], partial(try_decoding, DEFAULT_POLICY))) == []

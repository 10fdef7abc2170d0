"""Where radiographs lie: in local folders, or behind URLs that pyarrow or fsspec can open, such as ``s3://``."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pa_fs

from crosseai.client.sources.discovery import discover
from crosseai.contract import InputError, UnreadableImageError, UnsupportedImageError
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy, read_content


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to be scored.

    Parameters
    ----------
    name
        How results name it: relative to the scored directory.
    location
        Local path or URL.
    image_id
        Hash of its content when it was indexed, as :func:`crosseai.client.sources.discovery.image_id` gives it; None
        where nobody looked.
    """

    name: str
    location: str
    image_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a listing shows it.

    Parameters
    ----------
    name
        Relative to the listed folder; bytes that are no UTF-8 are lone surrogates, as in :mod:`os`.
    location
        Local path or URL.
    bytes, modified_ns
        Size, and nanoseconds since 1970; None where the storage does not say, or there is nothing to be read.
    """

    name: str
    location: str
    bytes: int | None
    modified_ns: int | None


def is_url(location: str) -> bool:
    """Whether a location is a URL, and not a local path."""
    return "://" in location


def locate(root: str, name: str) -> str:
    """Location of a file below a folder; a name that is absolute or a URL is its own location."""
    if is_url(name) or name.startswith("/"):
        return name
    if is_url(root):
        parts = urlsplit(root)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
    return f"{root.rstrip('/')}/{name}"


def read_file(location: str, policy: ReadPolicy = DEFAULT_POLICY) -> bytes:
    """All bytes of a file; no regular file, or too large a one, is refused before a byte of it is read.

    Raises
    ------
    UnreadableImageError, UnsupportedImageError
        If it cannot be read or is too large; the message does not name the file.
    """
    if not is_url(location):
        return read_content(Path(location), policy)
    with _unreadable():
        filesystem, path = open_filesystem(location)
        info = filesystem.get_file_info(path)
        if not info.is_file:
            raise UnreadableImageError(f"expected a file, found {info.type.name.lower()}")
        if info.size > policy.max_file_bytes:
            raise UnsupportedImageError(f"expected at most {policy.max_file_bytes} bytes, found {info.size}")
        with filesystem.open_input_stream(path) as stream:
            return cast(bytes, stream.read())


@contextmanager
def open_file(location: str) -> Iterator[io.BufferedReader]:
    """Open a file for reading any part of it.

    Raises
    ------
    UnreadableImageError
        If it cannot be read.
    """
    with _unreadable():
        if not is_url(location):
            with Path(location).open("rb") as file:
                yield file
        else:
            filesystem, path = open_filesystem(location)
            with filesystem.open_input_file(path) as stream, _RemoteFile(stream) as file:
                yield file


def open_filesystem(url: str) -> tuple[pa_fs.FileSystem, str]:
    """The filesystem of a URL, and the path in it.

    pyarrow opens ``file``, ``s3``, ``gs``, ``abfs`` and ``hdfs``, with the usual environment variables, or options in
    the query (``?endpoint_override=HOST:PORT``), and what fsspec has as ``fsspec+PROTOCOL://``.

    Raises
    ------
    InputError
        If nothing opens URLs of this kind, or it holds a password.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise InputError(f"{parts.scheme}://: expected no password in a URL, as results name it; use the environment")
    filesystem, root = _filesystem(urlunsplit(parts._replace(path="/")))
    return filesystem, f"{root.rstrip('/')}/{unquote(parts.path).strip('/')}"


def list_files(root: str, output: Path) -> Iterator[Listed]:
    """Every file below a local directory or a URL, in the order and with the exceptions of :func:`discover`.

    Raises
    ------
    InputError
        If there is no such directory.
    """
    if is_url(root):
        yield from _list_remote(root)
        return
    for path in discover(Path(root), output):
        name = str(path.relative_to(root))
        try:
            status = path.stat()
        except OSError:
            yield Listed(name, str(path), None, None)
        else:
            yield Listed(name, str(path), status.st_size, status.st_mtime_ns)


def _list_remote(root: str) -> Iterator[Listed]:
    filesystem, top = open_filesystem(root)
    folders = [top]
    while folders:
        try:
            infos = filesystem.get_file_info(pa_fs.FileSelector(folders.pop()))
            names = [info.base_name for info in infos]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{root}: cannot be listed: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{root}: expected names in UTF-8 behind a URL, found {error.object!r}") from error
        named = sorted(zip(names, infos, strict=True), key=itemgetter(0))
        infos = [info for name, info in named if not name.startswith(".")]
        for info in infos:
            if info.is_file:
                name = info.path.removeprefix(top).lstrip("/")
                yield Listed(name, locate(root, name), info.size, info.mtime_ns)
        folders += reversed([info.path for info in infos if info.type is pa_fs.FileType.Directory])


class _RemoteFile(io.BufferedReader):
    name = ""  # pydicom asks for it


@lru_cache
def _filesystem(root: str) -> tuple[pa_fs.FileSystem, str]:
    try:
        filesystem, path = pa_fs.FileSystem.from_uri(root)
    except (pa.ArrowException, ValueError, ImportError) as error:
        raise InputError(f"{root}: cannot be opened: {error}") from error
    return filesystem, path


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UnreadableImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error

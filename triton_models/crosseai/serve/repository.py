"""A Triton model repository on disk: ``R/crosseai/config.pbtxt`` and ``R/crosseai/<N>/model.onnx``.

A model file is code in effect, so nothing gets in here that was not checked, and no name or link leads out of it.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from crosseai.contract import MODEL_FILENAME, ContractError, InputError, ModelSpec
from crosseai.serve.config import (
    CONFIG_FILENAME,
    Runtime,
    ServedVersion,
    check_same_tensors,
    read_champion,
    read_config,
    served_filename,
    write_config,
)

_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def place_version(repository: Path, source: Path, version: int) -> Path:
    """Copy a model into a repository as one more version, and list it in ``config.pbtxt``.

    The version appears in one step, complete and checked, or not at all. Placing the same model again does nothing.

    Parameters
    ----------
    repository
        The model repository; made if it does not exist.
    source
        Folder with ``model.onnx`` and ``model_spec.json``.
    version
        Version directory to make, from 1 up.

    Returns
    -------
    Path
        The version's folder.

    Raises
    ------
    ContractError
        If the version exists with another model, or cannot be served beside the others.
    InputError
        If the name or the version is not one that Triton takes, a file is missing, or something is a link.
    """
    placed = copy_version(repository, source, version)
    name = placed.spec.name
    versions = {**versions_of(repository, name), version: placed}
    list_versions(repository, placed.spec, versions, champion_of(repository, name))
    return model_folder(repository, name) / str(version)


def copy_version(repository: Path, source: Path, version: int, plan: Path | None = None) -> ServedVersion:
    """Copy a model into a repository, as :func:`place_version`, but leave ``config.pbtxt`` as it is.

    Parameters
    ----------
    repository, source, version
        As for :func:`place_version`.
    plan
        A TensorRT plan of the model, ``model.plan``, to be copied in its place, with the record of its build.

    Raises
    ------
    ContractError, InputError
        As :func:`place_version`.
    """
    spec = ModelSpec.load(_plain(source, Path.is_dir))
    model = _plain(plan or source / MODEL_FILENAME, Path.is_file)
    if version < 1:
        raise InputError(f"expected a version from 1 up, found {version}")
    if plan is None:
        _refuse_external_data(model)
    folder = model_folder(repository, spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    listed = versions_of(repository, spec.name)
    for other in listed.values():
        check_same_tensors(other.spec, spec, f"version {version} ({source})")
    placed = ServedVersion(spec, sha256_of(model))
    if listed.get(version, placed) != placed:
        raise ContractError(
            f"version {version} of {spec.name!r} is in {repository} already, as another model than {source}: expected "
            f"SHA-256 {listed[version].sha256}, found {placed.sha256} (or another spec); a version never changes"
        )
    _copy(model, placed, folder / str(version))
    return placed


def list_versions(
    repository: Path,
    spec: ModelSpec,
    versions: Mapping[int, ServedVersion],
    champion: int | None,
    runtime: Runtime = "onnxruntime",
) -> None:
    """Write ``config.pbtxt``, in one step: what the server loads when it starts.

    Raises
    ------
    ContractError
        As :func:`crosseai.serve.config.write_config`.
    """
    _replace(
        model_folder(repository, spec.name) / CONFIG_FILENAME, write_config(spec, versions, champion, runtime=runtime)
    )


def champion_of(repository: Path, name: str) -> int | None:
    """Version of a model that a repository names as the one to ask for, if any."""
    config = model_folder(repository, name) / CONFIG_FILENAME
    return read_champion(config.read_text(encoding="utf-8")) if config.is_file() else None


def versions_of(repository: Path, name: str) -> Mapping[int, ServedVersion]:
    """Versions of a model that a repository lists and holds.

    Raises
    ------
    ContractError
        If ``config.pbtxt`` cannot be read, or lists a version that is not there.
    """
    folder = model_folder(repository, name)
    config = folder / CONFIG_FILENAME
    if not config.is_file():
        return {}
    text = config.read_text(encoding="utf-8")
    versions = read_config(text)
    try:
        for number in versions:
            _plain(folder / str(number), Path.is_dir)
            _plain(folder / str(number) / served_filename(text), Path.is_file)
    except InputError:
        if config.read_text(encoding="utf-8") != text:  # a version was taken away meanwhile
            return versions_of(repository, name)
        raise
    return versions


def models_of(repository: Path) -> tuple[str, ...]:
    """Names of the models in a repository.

    Raises
    ------
    InputError
        If it holds none, one with a name that Triton does not take, or a symbolic link.
    """
    names = sorted(config.parent.name for config in repository.glob(f"*/{CONFIG_FILENAME}"))
    if not names:
        raise InputError(f"expected a Triton model repository with at least one model, found none in {repository}")
    for name in names:
        folder = model_folder(repository, name)
        link = next((path for path in folder.rglob("*") if path.is_symlink()), None)
        if link is not None:
            raise InputError(f"expected files and folders alone in {folder}, found a symbolic link: {link}")
    return tuple(names)


def model_folder(repository: Path, name: str) -> Path:
    """Folder of a model.

    Raises
    ------
    InputError
        If the name could lead out of the repository, or the folder is a link.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise InputError(f"expected a model name of letters, digits, '_', '.' and '-', found {name!r}")
    folder = repository / name
    return _plain(folder, Path.is_dir) if folder.exists() or folder.is_symlink() else folder


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(model: Path, version: ServedVersion, target: Path) -> None:
    """Make a version's folder in one step; one that is there but broken, as after a crash, is replaced."""
    if target.exists() or target.is_symlink():
        _plain(target, Path.is_dir)
    if (target / model.name).is_file() and sha256_of(target / model.name) == version.sha256:
        return
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as incoming:
        complete = Path(incoming) / "complete"
        complete.mkdir()
        shutil.copyfile(model, complete / model.name)
        version.spec.save(complete)
        record = model.with_name(f"{model.name}.json")
        if record.is_file():
            shutil.copyfile(record, complete / record.name)
        found = sha256_of(complete / model.name)
        if found != version.sha256:
            raise ContractError(
                f"{model} changed while it was copied: expected SHA-256 {version.sha256}, found {found}"
            )
        if target.exists():
            target.rename(Path(incoming) / "broken")
        complete.rename(target)


def _refuse_external_data(model: Path) -> None:
    """Check that a model is one file: a tensor kept elsewhere could be any file that the server can read."""
    import onnx

    try:
        graph = onnx.load(model, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"expected an ONNX model at {model}: {error}") from error
    outside = next((t.name for t in _tensors(graph) if t.external_data), None)
    if outside is not None:
        raise InputError(f"expected all tensors inside {model}, found {outside!r} in another file")


def _tensors(message: Message) -> Iterator[Any]:
    """Every tensor below a protobuf message: initializers, constants, those of subgraphs and functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _tensors(inner)


def _replace(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def _plain(path: Path, is_kind: Callable[[Path], bool]) -> Path:
    """Check that something exists, and is not a link to somewhere else."""
    if path.is_symlink() or not is_kind(path):
        kind = "folder" if is_kind is Path.is_dir else "file"
        found = "a symbolic link" if path.is_symlink() else "something else" if path.exists() else "nothing"
        raise InputError(f"expected a {kind} at {path}, found {found}")
    return path

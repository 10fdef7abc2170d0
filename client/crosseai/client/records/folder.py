"""The output folder of a run: held by one run at a time, and made by one configuration."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from crosseai.client.records.manifest import check_same_configuration
from crosseai.contract import InputError, OutputError


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Make the output folder and hold it for this run alone.

    Raises
    ------
    InputError
        If another run holds it.
    OutputError
        If it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError as error:
        raise OutputError(f"{output}: cannot be made or written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{output}: another run is writing to it; wait for it or choose another --output"
            ) from error
        yield


def folder_for(output: Path, configuration: Mapping[str, Any], held: ExitStack, *, new: bool) -> Path:
    """The folder to write to: ``output``, or with ``new`` the first of ``output``, ``output-2``, ... that fits.

    Parameters
    ----------
    output
        A folder that this run holds already.
    configuration
        What the results depend on.
    held
        Takes the lock of another folder.
    new
        Whether to go on to the next folder where this one holds a run with another configuration. The same command
        finds its own folder again.

    Raises
    ------
    InputError
        If ``output`` holds a run with another configuration, or another run holds the folder that fits.
    """
    folder, number = output, 1
    while True:
        try:
            check_same_configuration(folder, configuration)
        except InputError:
            if not new:
                raise
        else:
            return folder
        number += 1
        folder = output.with_name(f"{output.name}-{number}")
        held.enter_context(locked(folder))

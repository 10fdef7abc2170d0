"""``manifest.json``: what made an output folder, and whether another run may continue it."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosseai.client.records.files import atomic_path
from crosseai.client.records.schema import SCHEMA_VERSION
from crosseai.contract import RESEARCH_NOTICE, InputError, reason

MANIFEST = "manifest.json"
PACKAGES = ("crosseai", "imagecodecs", "numpy", "opencv-python-headless", "pyarrow", "pydicom", "tritonclient")


def check_same_configuration(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Refuse to continue an output that was made in another way.

    Raises
    ------
    InputError
        If the folder's manifest names another configuration; the message lists what changed.
    """
    if not (folder / MANIFEST).exists():
        return
    found = dict(_flattened(read_configuration(folder)))
    wanted = dict(_flattened(json.loads(json.dumps(configuration))))
    changes = [
        f"  {key}: {found.get(key, 'absent')!r} -> {wanted.get(key, 'absent')!r}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key, "absent") != wanted.get(key, "absent")
    ]
    if changes:
        raise InputError(
            f"{folder} holds a run with another configuration; choose another --output, or --new to start beside it:\n"
            + "\n".join(changes)
        )


def this_run(started: datetime, seconds: float, files: int) -> dict[str, Any]:
    """What the manifest says of one run: when, how long, how many files and what with; 0 and 0 while it runs."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "files": files,
        "software": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def write_manifest(
    folder: Path,
    *,
    status: str,
    configuration: Mapping[str, Any],
    counts: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
) -> None:
    """Write the manifest.

    Parameters
    ----------
    folder
        The output.
    status
        ``running``, ``partial`` or ``complete``.
    configuration
        What the results depend on.
    counts
        Contents of the tables.
    runs
        What :func:`this_run` says of each run that put something into the folder or was killed, the first one first.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    manifest = {
        "notice": RESEARCH_NOTICE,
        "status": status,
        "configuration": configuration,
        "schema_version": SCHEMA_VERSION,
        "counts": counts,
        "times": {"started": runs[0]["started"], "seconds": round(sum(run["seconds"] for run in runs), 3)},
        "runs": runs,
    }
    with atomic_path(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_history(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Counts and runs of a folder's manifest; nothing where there is none.

    Raises
    ------
    InputError
        If it is not the manifest of a run.
    """
    if not (folder / MANIFEST).exists():
        return {}, []
    manifest = _read(folder)
    return dict(manifest["counts"]), list(manifest["runs"])


def read_configuration(folder: Path) -> dict[str, Any]:
    """Configuration of the run that made a folder.

    Raises
    ------
    InputError
        If the folder has no manifest of a run.
    """
    return dict(_read(folder)["configuration"])


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = {"configuration", "counts", "runs"} - manifest.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected the manifest of a run: {reason(error)}") from error
    if missing:
        raise InputError(f"{path}: expected the manifest of a run, found no {' or '.join(sorted(missing))}")
    return dict(manifest)


def _flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, by dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value

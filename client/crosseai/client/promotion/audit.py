"""The record of who promoted what, when, why, and what each step found: in a file, and at the version in MLflow."""

import getpass
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosseai.client.promotion.registry import Registry
from crosseai.contract import CrossEAIError, OutputError

MAX_TAG_LENGTH = 4000


class Audit:
    """Records the steps of one promotion or rollback as they happen.

    Each record is a line of JSON, appended and synced to the log, and a tag ``audit.<id>.<nn>-<step>`` of the version.

    Parameters
    ----------
    registry
        Where the tags go.
    log
        File of all promotions, only ever appended to; None for a rehearsal, of which there is no record.
    number
        The version that is to become champion.
    facts
        What every record says: the action, the reason, the model's checksum.

    Raises
    ------
    OutputError
        In every method, if the log cannot be written: what cannot be recorded is not done.
    """

    def __init__(self, registry: Registry, log: Path | None, number: int, facts: Mapping[str, Any]) -> None:
        self._registry = registry
        self._log = log
        self._version = number
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        self._facts = {
            "id": self.id,
            "who": f"{_user()}@{socket.gethostname()}",
            "software": f"crosseai {version('crosseai')}",
            "model": registry.name,
            "version": number,
            **facts,
        }
        self._steps = 0

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Record one step, and whether it succeeded; what the caller puts into the dictionary is part of the record.

        Raises
        ------
        CrossEAIError
            The step's own error; its message then begins with the name of the step.
        """
        found: dict[str, Any] = {}
        try:
            yield found
        except CrossEAIError as error:
            self._record(name, "failed", {**found, "error": str(error)})
            raise type(error)(f"{name}: {error}") from error
        except BaseException as error:
            self._record(name, "interrupted", {**found, "error": repr(error)})
            raise
        self._record(name, "done", found)

    def _record(self, step: str, outcome: str, found: Mapping[str, Any]) -> None:
        if self._log is None:
            return
        self._steps += 1
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {**self._facts, "when": when, "step": step, "outcome": outcome, **found}
        line = json.dumps(record, default=str)
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, f"{line}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"{self._log}: the audit record cannot be written: {error.strerror}") from error
        name = re.sub(r"[^\w.: -]+", "_", step)  # MLflow refuses tags with addresses in them
        self._registry.tag(self._version, f"audit.{self.id}.{self._steps:02}-{name}", line[:MAX_TAG_LENGTH])


def _user() -> str:
    """Name of the user, else the number: a container may run as one that its system does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

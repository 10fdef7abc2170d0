"""Sending DICOM objects to an archive: DICOMweb's STOW-RS, or C-STORE."""

import logging
import random
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association

from crosseai.client.servers.credentials import NO_CREDENTIALS, Credentials, is_loopback
from crosseai.contract import InputError, OutputError, ServerUnavailable

ATTEMPTS = 5
FIRST_RETRY_S = 0.5
DICOMWEB, DIMSE = ("http", "https"), ("dicom", "dicom-tls")
OUR_AE_TITLE = "CROSSEAI"
STORAGE_CLASSES = (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    ParametricMapStorage,
)
for _name in ("pynetdicom", "retrying"):  # what they log of an attempt that failed, our error says at the last one
    logging.getLogger(_name).addHandler(logging.NullHandler())

SENT = "sent.tsv"
"""Beside the objects: a line for each one that an archive has taken, destination and name."""


class RefusedObjectError(Exception):
    """The archive answered that it does not take this object; asking again would not help."""


@dataclass(frozen=True, slots=True)
class PushSummary:
    """Objects that the archive took now, that it had taken earlier, and the reasons why it refused others by name."""

    sent: int
    earlier: int
    refused: dict[str, str]


class _Archive(Protocol):
    def store(self, instance: Dataset) -> None: ...


def push(
    files: Iterable[Path],
    folder: Path,
    destination: str,
    *,
    credentials: Credentials = NO_CREDENTIALS,
    timeout_s: float = 60.0,
) -> PushSummary:
    """Send DICOM files to an archive, each one once.

    What the archive took is noted in ``folder / SENT``, so that the same call sends the rest. An archive that cannot
    be reached is tried again with growing pauses and jitter. UIDs follow from content: an object that was taken
    without our noting it is the same object again, not another.

    Parameters
    ----------
    files
        DICOM files below ``folder``.
    folder
        Folder of the run.
    destination
        ``http://`` or ``https://`` URL of a DICOMweb service, or ``dicom://[AE_TITLE@]HOST:PORT``, ``dicom-tls://...``
        for C-STORE.
    credentials
        Certificates for encrypted connections, and a bearer token for DICOMweb.
    timeout_s
        Deadline of each request, in seconds.

    Raises
    ------
    InputError
        If the destination is none, or a token would travel to it unencrypted.
    ServerUnavailable
        If the archive cannot be reached after several attempts; what it took is noted.
    OutputError
        If that cannot be noted.
    """
    note = folder / SENT
    try:
        known = set(note.read_text(encoding="utf-8").splitlines()) if note.exists() else set()
        sent, earlier, refused = 0, 0, {}
        with _connect(destination, credentials, timeout_s) as archive, note.open("a", encoding="utf-8") as notes:
            for path in files:
                name = str(path.relative_to(folder))
                line = f"{destination}\t{name}"
                if line in known:
                    earlier += 1
                    continue
                try:
                    _store(archive, pydicom.dcmread(path), destination)
                except RefusedObjectError as error:
                    refused[name] = str(error)
                else:
                    sent += 1
                    notes.write(line + "\n")
                    notes.flush()
    except OSError as error:
        raise OutputError(f"{error.filename or note}: cannot be read or written: {error.strerror}") from error
    return PushSummary(sent, earlier, refused)


def _store(archive: _Archive, instance: Dataset, destination: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return archive.store(instance)
        except ServerUnavailable as error:
            if attempt == ATTEMPTS:
                raise ServerUnavailable(f"archive {destination}: {ATTEMPTS} attempts failed: {error}") from error
            time.sleep(FIRST_RETRY_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
    return None


def check_destination(destination: str) -> SplitResult:
    """The parts of an archive's address.

    Raises
    ------
    InputError
        If it is none, or holds a password.
    """
    try:
        url = urlsplit(destination)
        complete = url.hostname and (url.port or url.scheme in DICOMWEB) and url.scheme in (*DICOMWEB, *DIMSE)
    except ValueError:  # a port that is no number, an unclosed bracket
        complete = False
    if not complete:
        raise InputError(
            f"archive {destination}: expected http(s)://HOST/PATH (DICOMweb), dicom://[AE_TITLE@]HOST:PORT or dicom-tls://..."
        )
    if url.password is not None:
        raise InputError(f"archive {url.hostname}: expected no password in its address, which results name")
    return url


def _connect(destination: str, credentials: Credentials, timeout_s: float) -> AbstractContextManager[_Archive]:
    url = check_destination(destination)
    if url.scheme in DICOMWEB:
        if url.scheme == "http" and credentials.token is not None and not is_loopback(url.hostname or ""):
            raise InputError(f"archive {destination}: expected https://, as a token is never sent unencrypted")
        return _dicomweb(destination, credentials, timeout_s)
    return _dimse(url, credentials, timeout_s)


@dataclass(frozen=True, slots=True)
class _DicomWeb:
    client: DICOMwebClient

    def store(self, instance: Dataset) -> None:
        try:
            answer = self.client.store_instances([instance])
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 500
            if status == 429 or status >= 500:
                raise ServerUnavailable(f"HTTP status {status}") from error
            raise RefusedObjectError(f"HTTP status {status}") from error
        except requests.RequestException as error:
            raise ServerUnavailable(type(error).__name__) from error
        for failed in answer.get("FailedSOPSequence") or ():
            raise RefusedObjectError(f"STOW-RS failure reason 0x{failed.FailureReason:04X}")


@contextmanager
def _dicomweb(url: str, credentials: Credentials, timeout_s: float) -> Iterator[_DicomWeb]:
    with create_session() as session:
        if credentials.ca is not None:
            session.verify = str(credentials.ca)
            session.trust_env = False  # else the variable REQUESTS_CA_BUNDLE goes before what was asked for
        if credentials.certificate is not None:
            session.cert = (str(credentials.certificate), str(credentials.key))
        client = DICOMwebClient(url.rstrip("/"), session, headers=dict(credentials.headers or {}), timeout=timeout_s)
        client.set_http_retry_params(retry=False)
        yield _DicomWeb(client)


class _Dimse:
    """An association that is made when it is needed, and again when it broke."""

    def __init__(self, entity: AE, address: tuple[str, int], arguments: dict[str, Any]) -> None:
        self._entity = entity
        self._address = address
        self._arguments = arguments
        self._association: Association | None = None

    def store(self, instance: Dataset) -> None:
        if self._association is None or not self._association.is_established:
            self._association = self._entity.associate(*self._address, **self._arguments)
            if not self._association.is_established:
                raise ServerUnavailable("no association")
        try:
            answer = self._association.send_c_store(instance)
        except ValueError as error:  # no presentation context for it was accepted
            raise RefusedObjectError(str(error)) from error
        if "Status" not in answer:
            raise ServerUnavailable("the association broke")
        if answer.Status >> 12 not in (0x0, 0xB):  # success, or a warning: stored (PS3.4 B.2.3)
            raise RefusedObjectError(f"C-STORE status 0x{answer.Status:04X}")

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()


@contextmanager
def _dimse(url: SplitResult, credentials: Credentials, timeout_s: float) -> Iterator[_Dimse]:
    entity = AE(OUR_AE_TITLE)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    for storage_class in STORAGE_CLASSES:
        entity.add_requested_context(storage_class, ExplicitVRLittleEndian)
    arguments: dict[str, Any] = {"ae_title": url.username or "ANY-SCP"}
    if url.scheme == "dicom-tls":
        tls = ssl.create_default_context(cafile=None if credentials.ca is None else str(credentials.ca))
        if credentials.certificate is not None:
            tls.load_cert_chain(credentials.certificate, credentials.key)
        arguments["tls_args"] = (tls, url.hostname)
    archive = _Dimse(entity, (str(url.hostname), url.port or 0), arguments)
    try:
        yield archive
    finally:
        archive.close()

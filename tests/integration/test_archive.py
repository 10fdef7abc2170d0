"""DICOM objects go to a real archive, Orthanc, and come back as they were."""

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, get_args

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient

from crosseai.client import push as push_module
from crosseai.client.formats.dicom import write_dicom_objects
from crosseai.client.formats.dicom_context import DicomObject
from crosseai.client.push import PushSummary, push
from crosseai.client.servers.credentials import Credentials
from crosseai.contract import Finding, ImageResult, InputError, ModelIdentity, ServerUnavailable
from crosseai.training.phantoms import write_phantoms

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored.*socket:pytest.PytestUnraisableExceptionWarning")
KINDS = get_args(DicomObject)


class Orthanc:
    """An archive of its own on free ports of the loopback."""

    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self.http_port, self.dicom_port = (_free_port() for _ in range(2))
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._log = folder / "orthanc.log"
        self._configuration = folder / "orthanc.json"
        configuration = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [str(PLUGIN)],
        }
        if tls is not None:
            configuration |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(tls / "server.crt"),
                "DicomTlsPrivateKey": str(tls / "server.key"),
                "DicomTlsTrustedCertificates": str(tls / "ca.crt"),
            }
        self._configuration.write_text(json.dumps(configuration))

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(["Orthanc", str(self._configuration)], stdout=log, stderr=log)
        for _ in range(200):
            if self._process.poll() is not None:
                raise RuntimeError(self._log.read_text())
            try:
                requests.get(f"{self.url}/system", timeout=5)
            except requests.ConnectionError:
                time.sleep(0.1)
            else:
                return self
        raise RuntimeError(self._log.read_text())

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def instances(self) -> list[str]:
        """Orthanc's own names of what it holds."""
        return list(requests.get(f"{self.url}/instances", timeout=10).json())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)")
    with Orthanc(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over two phantoms, each with a finding: eight DICOM objects."""
    folder = tmp_path_factory.mktemp("run")
    write_phantoms(folder / "in", count=2, seed=5, size=128, image_format="dicom")
    for path in sorted(folder.rglob("*.dcm")):
        findings = (Finding("Mass", 0.75, (10, 20, 100, 120), (1, 2, 3, 4), 120.5),)
        result = ImageResult(path.stem, path.name, 128, 128, "7", {"Mass": 0.75}, {"Mass": True}, findings)
        model = ModelIdentity("crosseai", "7", "ab" * 32)
        write_dicom_objects(
            path,
            folder / "out",
            KINDS,
            result,
            model,
            lambda: np.zeros((128, 128, 3), np.uint8),
            lambda: [np.ones((32, 32), np.float32)],
        )
    return folder / "out"


@pytest.fixture
def files(output: Path) -> Iterator[list[Path]]:
    yield sorted(output.rglob("*.dcm"))
    (output / push_module.SENT).unlink(missing_ok=True)


def destination(orthanc: Orthanc, protocol: str) -> str:
    if protocol == "dicomweb":
        return f"{orthanc.url}/dicom-web"
    return f"dicom://ORTHANC@127.0.0.1:{orthanc.dicom_port}"


@pytest.mark.parametrize("protocol", ["dicomweb", "c-store"])
def test_what_was_sent_comes_back_as_it_was_and_is_sent_once(
    orthanc: Orthanc, output: Path, files: list[Path], protocol: str
) -> None:
    archive = destination(orthanc, protocol)
    assert push(files, output, archive) == PushSummary(sent=8, earlier=0, refused={})
    assert push(files, output, archive) == PushSummary(sent=0, earlier=8, refused={})
    (output / push_module.SENT).unlink()  # as if we had been killed before we noted it
    assert push(files, output, archive).sent == len(orthanc.instances()) == len(files) == 8
    web = DICOMwebClient(f"{orthanc.url}/dicom-web")
    for file in files:
        sent = pydicom.dcmread(file)
        (back,) = web.retrieve_series(sent.StudyInstanceUID, sent.SeriesInstanceUID)
        assert {e.tag: e for e in back} == {e.tag: e for e in sent}


def test_an_archive_that_comes_up_late_is_waited_for(
    tmp_path: Path, output: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, orthanc: Orthanc
) -> None:
    (tmp_path / "late").mkdir()
    late = Orthanc(tmp_path / "late")
    pauses: list[float] = []

    def start_at_the_second_pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            late.__enter__()

    monkeypatch.setattr(push_module.time, "sleep", start_at_the_second_pause)
    try:
        assert push(files, output, destination(late, "c-store")).sent == 8
    finally:
        late.__exit__()
    assert pauses[1] > 0


def test_an_archive_that_stays_away_is_an_error_and_loses_nothing(
    orthanc: Orthanc, output: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "FIRST_RETRY_S", 0.0)
    assert push(files[:2], output, destination(orthanc, "dicomweb")).sent == 2
    for nobody in (f"http://127.0.0.1:{_free_port()}/dicom-web", f"dicom://X@127.0.0.1:{_free_port()}"):
        with pytest.raises(ServerUnavailable, match="5 attempts failed"):
            push(files, output, nobody)
    assert push(files, output, destination(orthanc, "dicomweb")) == PushSummary(sent=6, earlier=2, refused={})


def test_an_object_that_is_refused_stops_no_other(orthanc: Orthanc, output: Path, files: list[Path]) -> None:
    foreign = output / "dicom-sr" / "foreign.dcm"
    dataset = pydicom.dcmread(files[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.save_as(foreign)
    try:
        summary = push([foreign, *files], output, destination(orthanc, "c-store"))
    finally:
        foreign.unlink()
    assert summary.sent == 8
    assert list(summary.refused) == ["dicom-sr/foreign.dcm"]


@pytest.mark.parametrize("wrong", ["ftp://a/b", "orthanc:4242", "dicom://host", ""])
def test_a_destination_that_is_none_is_an_error(output: Path, files: list[Path], wrong: str) -> None:
    with pytest.raises(InputError, match="expected"):
        push(files, output, wrong)


def test_c_store_over_tls_with_both_certificates(tmp_path: Path, output: Path, files: list[Path]) -> None:
    if shutil.which("Orthanc") is None or shutil.which("openssl") is None:
        pytest.skip("Orthanc or openssl is not installed (Debian: orthanc, openssl)")
    make_certificates(tmp_path)
    with Orthanc(tmp_path, tls=tmp_path) as orthanc:
        archive = f"dicom-tls://ORTHANC@127.0.0.1:{orthanc.dicom_port}"
        ours = Credentials(ca=tmp_path / "ca.crt", certificate=tmp_path / "client.crt", key=tmp_path / "client.key")
        assert push(files, output, archive, credentials=ours).sent == 8
        assert len(orthanc.instances()) == 8


def test_dicomweb_over_tls(
    tmp_path: Path, orthanc: Orthanc, output: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    make_certificates(tmp_path)
    monkeypatch.setattr(push_module, "FIRST_RETRY_S", 0.0)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())  # does not know our authority
    with tls_in_front_of(orthanc.http_port, tmp_path) as port:
        archive = f"https://127.0.0.1:{port}/dicom-web"
        assert push(files, output, archive, credentials=Credentials(ca=tmp_path / "ca.crt")).sent == 8
        with pytest.raises(ServerUnavailable, match="SSLError"):
            push(files, output, archive + "/")
    assert len(orthanc.instances()) == 8


@contextmanager
def tls_in_front_of(port: int, certificates: Path) -> Iterator[int]:
    """A port on which TLS ends, as at a hospital's proxy; Debian's Orthanc ends with it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def test_a_token_is_never_sent_unencrypted(output: Path, files: list[Path]) -> None:
    with pytest.raises(InputError, match="never sent unencrypted"):
        push(files, output, "http://pacs.invalid/dicom-web", credentials=Credentials(token="x"))  # noqa: S106 - no token


def make_certificates(folder: Path) -> None:
    """A certificate authority, and certificates by it for a server at 127.0.0.1 and for a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr")
        sign = ("x509", "-req", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(*sign, "-in", "csr", "-extfile", "san", "-out", f"{name}.crt")

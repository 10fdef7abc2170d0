"""Images for a server on this machine, in memory that both have mapped.

Triton maps a region of POSIX shared memory when it is registered, and needs its name no longer. So the name is removed
at once, and memory is freed by whoever lets go of it last, however a client ends. The registrations of a killed client
are removed by the next client of the server, and so is the name of a region that it was killed while registering.

Answers come as without it: one that comes too late must not be written where another one is read.
"""

import asyncio
import logging
import mmap
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from crosseai.contract import TensorSpec

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory

_CALL_TIMEOUT_S = 5.0
_UNREGISTER_ATTEMPTS, _UNREGISTER_PAUSE_S = 10, 0.05
"""Triton 24.09 and 24.10 refuse for an instant after the answer, as if the request still used the region."""

_NO_ANSWER = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "StatusCode.DEADLINE_EXCEEDED"})

_logger = logging.getLogger(__name__)


class Region:
    """Memory of ``size`` bytes for the images of one request at a time; ``proven`` once a request was answered.

    Raises
    ------
    OSError
        If there is not so much shared memory.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.name, self.size, self.proven = path.name, size, False
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # else a full disk would be a signal when we write
            self._bytes = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        finally:
            os.close(descriptor)

    def tensor(self, spec: TensorSpec, images: npt.NDArray[np.uint8]) -> InferInput:
        """Copy images here; the input that refers to them."""
        self._bytes[: images.nbytes] = images.reshape(-1)
        tensor = InferInput(spec.name, images.shape, spec.triton_dtype)
        tensor.set_shared_memory(self.name, images.nbytes)
        return tensor


class SharedImages:
    """Sends images to one server by shared memory where it takes them so, and in the request where it does not.

    Parameters
    ----------
    client
        The connection.
    headers
        Metadata of every call.
    local
        Whether the server is on this machine; no other is asked.
    """

    def __init__(self, client: InferenceServerClient, headers: Mapping[str, str] | None, *, local: bool) -> None:
        self._client = client
        self._options: dict[str, Any] = {"headers": headers, "client_timeout": _CALL_TIMEOUT_S}
        self._taken = local
        self._swept = False
        self._free: list[Region] = []
        self._names: set[str] = set()  # of all regions that the server may have, those of unanswered requests, too

    async def send(
        self, spec: TensorSpec, images: npt.NDArray[np.uint8], call: Callable[[InferInput], Awaitable[InferResult]]
    ) -> InferResult:
        """Make a call with uint8 images; one whose region the server does not know is made again without."""
        if (region := await self._region(images.nbytes)) is not None:
            try:
                answer = await call(region.tensor(spec, images))
            except InferenceServerException as error:
                if region.name not in error.message():
                    if _is_answer(error):  # else the server may read it yet
                        self._free.append(region)
                    raise
                # A server that was restarted does not know the region; one that never did is not to be asked again.
                self._taken &= region.proven
            else:
                region.proven = True
                self._free.append(region)
                return answer
        tensor = InferInput(spec.name, images.shape, spec.triton_dtype)
        return await call(tensor.set_data_from_numpy(images))

    async def close(self) -> None:
        """Have the server let go of the regions; it refuses where it still works on a request."""
        self._free.clear()
        await asyncio.gather(*(self._unregister(name) for name in self._names))
        self._names.clear()

    async def _region(self, size: int) -> Region | None:
        """A free region of at least this size, made if need be; None if the server takes none, or is away."""
        if not self._taken:
            return None
        for i, region in enumerate(self._free):
            if region.size >= size:
                return self._free.pop(i)
        try:
            await self._sweep()
            return await self._registered(FOLDER / f"{_prefix()}{os.getpid()}-{uuid.uuid4().hex}", size)
        except (OSError, InferenceServerException) as error:
            _logger.info("images are sent without shared memory: %s", error)
            self._taken &= isinstance(error, InferenceServerException) and not _is_answer(error)
            return None

    async def _registered(self, path: Path, size: int) -> Region:
        try:
            region = Region(path, size)
            self._names.add(region.name)
            await self._client.register_system_shared_memory(path.name, f"/{path.name}", size, **self._options)
        finally:
            path.unlink(missing_ok=True)
        return region

    async def _sweep(self) -> None:
        """Once, have the server let go of what killed clients have registered, and remove the names that they left."""
        if self._swept:
            return
        for path in FOLDER.glob(f"{_prefix()}*"):
            if _is_abandoned(path.name):
                with suppress(PermissionError):  # another user's
                    path.unlink(missing_ok=True)
        registered = (await self._client.get_system_shared_memory_status(**self._options)).regions
        self._swept = True
        await asyncio.gather(*(self._unregister(name) for name in registered if _is_abandoned(name)))

    async def _unregister(self, name: str) -> None:
        for _ in range(_UNREGISTER_ATTEMPTS):
            try:
                await self._client.unregister_system_shared_memory(name, **self._options)
            except InferenceServerException as error:
                if not _is_answer(error):
                    return
                await asyncio.sleep(_UNREGISTER_PAUSE_S)
            else:
                return


def _is_answer(error: InferenceServerException) -> bool:
    """Whether an error is the server's own; Triton calls it UNAVAILABLE, too, that an operation is restricted."""
    return error.status() not in _NO_ANSWER or "restricted" in error.message()


def _prefix() -> str:
    """What names of regions begin with: the numbers of processes hold in one namespace of one running kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"crosseai-images-{boot}-{Path('/proc/self/ns/pid').stat().st_ino}-"


def _is_abandoned(name: str) -> bool:
    """Whether a region belongs to a client that has ended."""
    found = re.fullmatch(rf"{_prefix()}(\d+)-\w+", name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's, which lives
    return False

"""Asynchronous gRPC to one Triton server; beside :mod:`.shared_memory` the only module that knows ``tritonclient``."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from crosseai.client.servers.addresses import parse_address
from crosseai.client.servers.credentials import NO_CREDENTIALS, Credentials, is_loopback
from crosseai.client.servers.shared_memory import SharedImages
from crosseai.contract import (
    CHAMPION,
    AccessRefused,
    ContractError,
    InferenceTimeout,
    InputError,
    ModelSpec,
    ServerError,
    ServerUnavailable,
)

STATISTICS_TIMEOUT_S = 5.0
"""Deadline of a call that nobody's results depend on."""

DRAIN_S = 5.0
"""How long requests under way are waited for when a connection is closed."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model, as a server describes it.

    Parameters
    ----------
    spec
        The model's spec, as the server's model configuration carries it.
    version, sha256
        Which model answers.
    max_batch_size
        Greatest number of images that the server takes in one request.
    """

    spec: ModelSpec
    version: str
    sha256: str
    max_batch_size: int


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Time that requests spent in a server, summed over requests, in seconds.

    Parameters
    ----------
    queue_s
        Waiting for the model.
    compute_s
        In the model, copies to it and from it included.
    """

    queue_s: float
    compute_s: float

    def since(self, earlier: "ServerStatistics | None") -> "ServerStatistics":
        """What was added; all of it if the server began to count anew."""
        if earlier is None or self.compute_s < earlier.compute_s:
            return self
        return ServerStatistics(self.queue_s - earlier.queue_s, self.compute_s - earlier.compute_s)


class TritonTransport:
    """A connection to one Triton server. Make it inside a running event loop, and close it there.

    Parameters
    ----------
    server
        ``grpc://HOST:PORT``, ``grpcs://HOST:PORT`` (TLS), or ``HOST:PORT``, which means TLS where ``credentials``
        has TLS files.
    credentials
        For TLS, and a bearer token.
    timeout_s
        Deadline of every call, in seconds.
    certified_name
        Whom the server's certificate names; None for the host in the address.

    Raises
    ------
    InputError
        If the address is malformed, or the credentials do not fit it.
    """

    def __init__(
        self,
        server: str,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        timeout_s: float = 120.0,
        certified_name: str | None = None,
    ) -> None:
        address = parse_address(server, encrypted=credentials.has_files)
        self.address = address.host_and_port
        self._headers = credentials.headers
        self._timeout_s = timeout_s
        named = [("grpc.ssl_target_name_override", certified_name)] if certified_name else []
        self._client = InferenceServerClient(
            self.address,
            creds=credentials.channel(self.address, encrypted=address.encrypted),
            channel_args=[*_CHANNEL_OPTIONS.items(), *named],
        )
        local = is_loopback(self.address.rpartition(":")[0].strip("[]"))
        self._shared_images = SharedImages(self._client, self._headers, local=local)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Close the connection, after the requests under way have ended or ``DRAIN_S`` are over."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=DRAIN_S)
        await self._shared_images.close()
        await self._client.close()

    async def _never_cancelled(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call that goes on when we are cancelled: a cancelled one can crash Triton, by a race in its
        gRPC frontend (triton-inference-server/server, issue 8034).
        """
        task = asyncio.ensure_future(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # where nobody waits any more, nobody wants to hear of it either

    async def infer(
        self,
        model: ServedModel,
        images: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.int64],
        outputs: Sequence[str],
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a model on one batch.

        Parameters
        ----------
        model
            The model, as :meth:`describe` gave it.
        images
            uint8 ``[N,1,S,S]``.
        targets
            int64 ``[N,K]``, K >= 1; -1 in column k means the k-th most probable class.
        outputs
            Names of the wanted output tensors; the server computes nothing else.

        Returns
        -------
        dict
            The wanted tensors, as ``ModelSpec.outputs`` describes them.

        Raises
        ------
        InputError
            If a target is no class of the model.
        ContractError
            If a tensor differs from the spec.
        ServerUnavailable, InferenceTimeout, AccessRefused, ServerError
            If the server went away, was too slow, or refused.
        """
        spec = model.spec
        if targets.size and not -1 <= targets.min() <= targets.max() < len(spec.classes):
            raise InputError(
                f"targets: expected -1 to {len(spec.classes) - 1}, found {targets.min()} to {targets.max()}"
            )
        image_spec, targets_spec = spec.inputs
        image_spec.check(images)
        targets_spec.check(targets)
        chosen = InferInput(targets_spec.name, targets.shape, targets_spec.triton_dtype).set_data_from_numpy(targets)

        async def call(pixels: InferInput) -> InferResult:
            return await self._client.infer(
                spec.name,
                [pixels, chosen],
                model_version=model.version,
                outputs=[InferRequestedOutput(name) for name in outputs],
                client_timeout=self._timeout_s,
                headers=self._headers,
            )

        with self._translated_errors():
            result = await self._never_cancelled(self._shared_images.send(image_spec, images, call))
        specs = {tensor.name: tensor for tensor in spec.outputs}
        arrays = {name: result.as_numpy(name) for name in outputs}
        for name, array in arrays.items():
            specs[name].check(array)
        return arrays

    async def check(self) -> None:
        """Ask the server whether it is there, whatever it serves.

        Raises
        ------
        ServerUnavailable, InferenceTimeout, AccessRefused, ServerError
            If it does not answer, or refuses.
        """
        with self._translated_errors():
            await self._client.is_server_live(client_timeout=self._timeout_s, headers=self._headers)

    async def describe(self, model: str = "crosseai", version: str | None = None) -> ServedModel:
        """Ask the server about a model.

        Parameters
        ----------
        model
            Model name.
        version
            Model version; None for the one that the server calls champion, else the newest that is loaded.

        Raises
        ------
        ServerUnavailable, InferenceTimeout, AccessRefused, ServerError
            If nobody answers, the model is not loaded, or the server refuses.
        ContractError
            If the model on the server is not one of ours, or differs from its own spec.
        """
        options = {"client_timeout": self._timeout_s, "headers": self._headers}
        with self._translated_errors():
            metadata = await self._client.get_model_metadata(model, version or "", **options)
            configuration = (await self._client.get_model_config(model, version or "", **options)).config
        parameters = configuration.parameters
        if version is None:
            version = parameters[CHAMPION].string_value or max(metadata.versions, key=int)
        if f"model_spec.{version}" not in parameters:
            raise ContractError(
                f"{self.address}: expected the parameter model_spec.{version} in the configuration of "
                f"model {model!r}, found {sorted(parameters)}"
            )
        spec = ModelSpec.from_json(parameters[f"model_spec.{version}"].string_value)
        served = {t.name: (t.datatype, tuple(t.shape)) for t in (*metadata.inputs, *metadata.outputs)}
        expected = {t.name: (t.triton_dtype, (-1, *t.triton_dims)) for t in (*spec.inputs, *spec.outputs)}
        if served != expected:
            raise ContractError(f"{self.address}: model {model!r} serves {served}, but its spec says {expected}")
        sha256 = parameters[f"model_sha256.{version}"].string_value
        return ServedModel(spec, version, sha256, configuration.max_batch_size)

    async def statistics(self, model: ServedModel) -> ServerStatistics:
        """What the server has done for a model since it was loaded.

        Raises
        ------
        ServerUnavailable, InferenceTimeout, AccessRefused, ServerError
            If the server does not answer.
        """
        with self._translated_errors():
            answer = await self._client.get_inference_statistics(
                model.spec.name,
                model.version,
                client_timeout=min(STATISTICS_TIMEOUT_S, self._timeout_s),
                headers=self._headers,
            )
        stats = answer.model_stats[0].inference_stats
        compute = (stats.compute_input, stats.compute_infer, stats.compute_output)
        return ServerStatistics(stats.queue.ns / 1e9, sum(part.ns for part in compute) / 1e9)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn the client library's errors into ours."""
        try:
            yield
        except InferenceServerException as error:
            kind = _ERRORS.get(error.status() or "", ServerError)
            raise kind(f"{self.address}: {error.message()}") from error


_CHANNEL_OPTIONS = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # A server that comes back is noticed within a second; who waits how long is for the caller to say.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1000,
}

_ERRORS: dict[str, type[ServerError]] = {
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.NOT_FOUND": ServerUnavailable,
    "StatusCode.CANCELLED": ServerUnavailable,
    "StatusCode.RESOURCE_EXHAUSTED": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": InferenceTimeout,
    "StatusCode.UNAUTHENTICATED": AccessRefused,
    "StatusCode.PERMISSION_DENIED": AccessRefused,
}

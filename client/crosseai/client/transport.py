"""Asynchronous gRPC to one Triton server; the only module that knows ``tritonclient``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from crosseai.contract import (
    ContractError,
    InferenceTimeout,
    InputError,
    ModelSpec,
    ServerError,
    ServerUnavailable,
    TensorSpec,
)

Arrays = Mapping[str, npt.NDArray[Any]]


class TritonTransport:
    """A connection to one version of one model on one server.

    Use :meth:`connect` inside a running event loop, and ``async with`` to close it.

    Attributes
    ----------
    spec
        The model's spec, as the server's model configuration carries it.
    model_version, model_sha256
        Which model answers.
    max_batch_size
        Greatest number of images that the server takes in one request.
    """

    def __init__(self, client: InferenceServerClient, address: str, timeout_s: float) -> None:
        self._client = client
        self._address = address
        self._timeout_s = timeout_s
        self.spec = ModelSpec()
        self.model_version = ""
        self.model_sha256 = ""
        self.max_batch_size = 1

    @classmethod
    async def connect(
        cls, server: str, *, model: str = "crosseai", version: str | None = None, timeout_s: float = 120.0
    ) -> Self:
        """Connect to a server and read the model's spec from it.

        Parameters
        ----------
        server
            ``grpc://HOST:PORT`` or ``HOST:PORT``.
        model
            Model name.
        version
            Model version; None for the newest one that is loaded.
        timeout_s
            Deadline of every call, in seconds.

        Raises
        ------
        InputError
            If the address is malformed.
        ServerUnavailable
            If nobody answers, or the model is not loaded.
        ContractError
            If the model on the server is not one of ours, or differs from its own spec.
        """
        address = parse_address(server)
        self = cls(InferenceServerClient(address), address, timeout_s)
        try:
            await self._read_spec(model, version)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def infer(
        self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64], outputs: Sequence[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on one batch.

        Parameters
        ----------
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
        ServerUnavailable, InferenceTimeout, ServerError
            If the server went away, was too slow, or refused.
        """
        if targets.size and not -1 <= targets.min() <= targets.max() < len(self.spec.classes):
            raise InputError(
                f"targets: expected -1 to {len(self.spec.classes) - 1}, found {targets.min()} to {targets.max()}"
            )
        image_spec, targets_spec = self.spec.inputs
        with self._translated_errors():
            result = await self._client.infer(
                self.spec.name,
                [self._input(image_spec, images), self._input(targets_spec, targets)],
                model_version=self.model_version,
                outputs=[InferRequestedOutput(name) for name in outputs],
                client_timeout=self._timeout_s,
            )
        specs = {spec.name: spec for spec in self.spec.outputs}
        arrays = {name: result.as_numpy(name) for name in outputs}
        for name, array in arrays.items():
            specs[name].check(array)
        return arrays

    @staticmethod
    def _input(spec: TensorSpec, array: npt.NDArray[Any]) -> InferInput:
        spec.check(array)
        tensor = InferInput(spec.name, array.shape, spec.triton_dtype)
        tensor.set_data_from_numpy(array)
        return tensor

    async def _read_spec(self, model: str, version: str | None) -> None:
        with self._translated_errors():
            metadata = await self._client.get_model_metadata(model, version or "", client_timeout=self._timeout_s)
            configuration = await self._client.get_model_config(model, version or "", client_timeout=self._timeout_s)
        self.model_version = version or max(metadata.versions, key=int)
        parameters = configuration.config.parameters
        if f"model_spec.{self.model_version}" not in parameters:
            raise ContractError(
                f"{self._address}: expected the parameter model_spec.{self.model_version} in the configuration of "
                f"model {model!r}, found {sorted(parameters)}"
            )
        self.max_batch_size = configuration.config.max_batch_size
        self.spec = ModelSpec.from_json(parameters[f"model_spec.{self.model_version}"].string_value)
        self.model_sha256 = parameters[f"model_sha256.{self.model_version}"].string_value
        served = {t.name: (t.datatype, tuple(t.shape)) for t in (*metadata.inputs, *metadata.outputs)}
        expected = {t.name: (t.triton_dtype, (-1, *t.triton_dims)) for t in (*self.spec.inputs, *self.spec.outputs)}
        if served != expected:
            raise ContractError(f"{self._address}: model {model!r} serves {served}, but its spec says {expected}")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn the client library's errors into ours."""
        try:
            yield
        except InferenceServerException as error:
            kind = {
                str(grpc.StatusCode.UNAVAILABLE): ServerUnavailable,
                str(grpc.StatusCode.NOT_FOUND): ServerUnavailable,
                str(grpc.StatusCode.CANCELLED): ServerUnavailable,
                str(grpc.StatusCode.DEADLINE_EXCEEDED): InferenceTimeout,
            }.get(error.status() or "", ServerError)
            raise kind(f"{self._address}: {error.message()}") from error


def parse_address(server: str) -> str:
    """``HOST:PORT`` of a server given as ``grpc://HOST:PORT`` or ``HOST:PORT``.

    Raises
    ------
    InputError
        If it is neither.
    """
    address = server.removeprefix("grpc://")
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"server {server!r}: expected grpc://HOST:PORT, for example grpc://localhost:8001")
    return address

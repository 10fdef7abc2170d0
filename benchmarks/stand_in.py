"""A stand-in for Triton: the real protocol over real gRPC, a fixed latency and capacity, and no model behind it.

It answers with zeros, or with what a model once answered to a few images. It shows how clients scale where there are
no machines to show it with; no figure from it is one of a model. ``python -m benchmarks.stand_in REPOSITORY`` prints
its address and runs until it is terminated.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from crosseai.contract import ModelSpec, TensorSpec


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the configuration of a real model, and always the same answers.

    Parameters
    ----------
    repository
        Model repository whose model it pretends to serve.
    latency_s
        How long each request takes, in seconds.
    capacity
        Requests that are answered at a time; others queue.
    answers
        What a model answered to a few images, with one map each: a file of :func:`numpy.savez`; None for zeros.
    """

    def __init__(self, repository: Path, latency_s: float, capacity: int, answers: Path | None = None) -> None:
        (config,) = repository.glob("*/config.pbtxt")
        self._config = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
        self._version = max((folder.name for folder in config.parent.iterdir() if folder.is_dir()), key=int)
        self._spec = ModelSpec.from_json(self._config.parameters[f"model_spec.{self._version}"].string_value)
        self._latency_s = latency_s
        self._places = asyncio.Semaphore(capacity)
        self._answered_s = 0.0
        self._answers = dict(np.load(answers)) if answers else {}

    async def ModelConfig(self, _request, _context):  # noqa: N802 - the protocol's name
        """What a real server would say."""
        return service_pb2.ModelConfigResponse(config=self._config)

    async def ModelMetadata(self, _request, _context):  # noqa: N802
        """What a real server would say."""
        return service_pb2.ModelMetadataResponse(
            name=self._config.name,
            versions=[self._version],
            inputs=[_metadata(tensor) for tensor in self._spec.inputs],
            outputs=[_metadata(tensor) for tensor in self._spec.outputs],
        )

    async def ModelStatistics(self, _request, _context):  # noqa: N802
        """The time that requests were held, as that of a model."""
        statistics = service_pb2.ModelStatistics()
        statistics.inference_stats.compute_infer.ns = round(1e9 * self._answered_s)
        return service_pb2.ModelStatisticsResponse(model_stats=[statistics])

    async def ModelInfer(self, request, _context):  # noqa: N802
        """The answers, or zeros, as often as there are images and maps, after the latency."""
        async with self._places:
            await asyncio.sleep(self._latency_s)
        self._answered_s += self._latency_s
        shapes = {tensor.name: tuple(tensor.shape) for tensor in request.inputs}
        images, maps = shapes["image"][0], shapes["targets"][1]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=self._version)
        tensors = {tensor.name: tensor for tensor in self._spec.outputs}
        for wanted in request.outputs:
            tensor = tensors[wanted.name]
            shape = [{"N": images, "K": maps}.get(size, size) for size in tensor.shape]
            content = np.resize(self._answers.get(tensor.name, np.zeros(1)), shape).astype(tensor.dtype, copy=False)
            answer.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=shape)
            answer.raw_output_contents.append(content.tobytes())
        return answer


def _metadata(tensor: TensorSpec) -> service_pb2.ModelMetadataResponse.TensorMetadata:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.triton_dtype, shape=[-1, *tensor.triton_dims]
    )


@contextmanager
def stand_ins(
    count: int, repository: Path, *, latency_s: float, capacity: int, answers: Path | None = None
) -> Iterator[str]:
    """Addresses of so many stand-ins, each a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stand_in", repository, "--latency", latency_s, "--capacity", capacity]
    command += ["--answers", answers] if answers else []
    with ExitStack() as running:
        processes = []
        for _ in range(count):
            process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
            running.enter_context(process)
            running.callback(process.terminate)
            processes.append(process)
        yield ",".join(process.stdout.readline().strip() for process in processes)


@click.command()
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--latency", "latency_s", default=0.1, show_default=True, help="Of each request, in seconds.")
@click.option("--capacity", default=1, show_default=True, help="Requests answered at a time.")
@click.option("--answers", type=click.Path(path_type=Path), help="What to answer, a .npz file.  [default: zeros]")
def main(repository: Path, latency_s: float, capacity: int, answers: Path | None) -> None:
    """Pretend to serve the model in REPOSITORY."""

    async def serve() -> None:
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        server = grpc.aio.server(options=unlimited)
        servicer = StandIn(repository, latency_s, capacity, answers)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        click.echo(f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(serve())


if __name__ == "__main__":
    main()

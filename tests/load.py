"""Clients that never stop asking, and notice whatever goes wrong."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from crosseai.contract import CHAMPION, MODEL_FILENAME
from tests.tiny_model import TINY_SPEC

REQUESTS_A_CONNECTION = 10
"""After so many a client connects anew, and asks again which version is the champion."""
PAUSE_S = 0.03


@dataclass
class Load:
    """Threads that send requests to a server; a context manager.

    Parameters
    ----------
    server
        Its gRPC address.
    models
        Folder with ``model.onnx`` of each version that may be champion; every answer is compared with it.
    champions
        The versions that may be called champion now: two while it changes.
    """

    server: str
    models: Mapping[int, Path]
    champions: set[int]
    threads: int = 2
    failures: list[str] = field(default_factory=list)
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    """Start, duration (both in seconds) and version of each answered request."""

    def __post_init__(self) -> None:
        side = TINY_SPEC.input_size
        self._image = np.random.default_rng(0).integers(0, 256, (1, 1, side, side), dtype=np.uint8)
        self._targets = np.array([[-1]])
        feed = {"image": self._image, "targets": self._targets}
        self._logits = {
            version: ort.InferenceSession(folder / MODEL_FILENAME).run(["logits"], feed)[0]
            for version, folder in self.models.items()
        }
        self._stopping = threading.Event()
        self._workers = [threading.Thread(target=self._work) for _ in range(self.threads)]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                with grpc.InferenceServerClient(self.server) as client:
                    version = self._champion(client)
                    for _ in range(REQUESTS_A_CONNECTION):
                        self._ask(client, version)
                        time.sleep(PAUSE_S)
            except InferenceServerException as error:
                self.failures.append(str(error))

    def _champion(self, client: grpc.InferenceServerClient) -> int:
        possible = set(self.champions)
        version = int(client.get_model_config("crosseai").config.parameters[CHAMPION].string_value)
        if version not in possible | self.champions:
            self.failures.append(f"champion {version}, expected one of {possible | self.champions}")
        return version

    def _ask(self, client: grpc.InferenceServerClient, version: int) -> None:
        image, targets = (
            grpc.InferInput("image", self._image.shape, "UINT8"),
            grpc.InferInput("targets", (1, 1), "INT64"),
        )
        image.set_data_from_numpy(self._image)
        targets.set_data_from_numpy(self._targets)
        began = time.monotonic()
        answer = client.infer("crosseai", [image, targets], model_version=str(version))
        self.answers.append((began, time.monotonic() - began, int(answer.get_response().model_version)))
        if self.answers[-1][2] != version:
            self.failures.append(f"version {self.answers[-1][2]} answered, expected {version}")
        if not np.allclose(answer.as_numpy("logits"), self._logits[version], rtol=1e-4, atol=1e-5):
            self.failures.append(f"version {version} gave another model's logits")

    def latencies_ms(self, phases: Sequence[tuple[float, float]]) -> np.ndarray:
        """Of the requests that were sent during some phases, each with a start and an end."""
        return np.array([1000 * took for at, took, _ in self.answers if any(a <= at < b for a, b in phases)])

"""Faults of the server, one by one, with a transport that computes nothing."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crosseai.client.explain import ExplainByName
from crosseai.client.findings import Localizer, ScoredImage
from crosseai.client.flow import Stream, stream
from crosseai.client.inference import Inference
from crosseai.client.meter import Meter
from crosseai.client.pipeline import DECODED_AHEAD, GROUP_BATCHES, GROUPS_UNDER_WAY, Outcome, Pipeline
from crosseai.client.servers.pool import ServerPool
from crosseai.client.servers.transport import ServedModel
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import ImageFailure, ModelSpec, ServerError, ServerUnavailable

SPEC = ModelSpec(input_size=16, feature_shape=(4, 2, 2))


class FakeTransport:
    """Answers with fixed maps; images whose first pixel is listed are answered with NaN, or refused."""

    address = "nowhere:1"

    def __init__(self, *, nan: set[int] = frozenset(), refused: set[int] = frozenset()) -> None:
        self.nan, self.refused = nan, refused

    async def describe(self, model: str, version: str | None = None) -> ServedModel:
        return ServedModel(SPEC, "7", "0" * 64, max_batch_size=4)

    async def close(self) -> None:
        pass

    async def infer(
        self, model: ServedModel, images: np.ndarray, targets: np.ndarray, outputs: Sequence[str]
    ) -> dict[str, Any]:
        first = images[:, 0, 0, 0].tolist()
        if self.refused & set(first):
            raise ServerError("refused")
        n, k = targets.shape
        tensors = {
            "logits": np.zeros((n, 8), np.float32),
            "explained": np.zeros((n, k), np.int64),
            "heatmaps": np.broadcast_to(np.eye(2, dtype=np.float32), (n, k, 2, 2)).copy(),
            "gradient_maps": np.full((n, k, 16, 16), 9, np.uint8),
        }
        for row, value in enumerate(first):
            if value in self.nan:
                tensors["heatmaps"][row] = np.nan
        return {name: tensors[name] for name in outputs}


def pipeline_over(servers: ServerPool, executor: ThreadPoolExecutor) -> Pipeline:
    return Pipeline(
        inference=Inference(servers, ExplainByName(lambda _: (-1,)), batch_size=4),
        localizer=Localizer(SPEC, "7", SPEC.boxes),
        meter=Meter(),
        executor=executor,
        batch_size=4,
        decoders=asyncio.Semaphore(2),
    )


def score(folder: Path, transport: FakeTransport, count: int = 6) -> list[Outcome]:
    for number in range(count):
        image = np.full((16, 16), 10 + number, np.uint8)
        image[-1, -1] = 200
        cv2.imwrite(str(folder / f"{number}.png"), image)

    async def collect() -> list[Outcome]:
        with ThreadPoolExecutor(2) as executor:
            servers = await ServerPool.connect([transport], wait_s=0, in_flight=2)  # type: ignore[list-item]
            pipeline = pipeline_over(servers, executor)
            files = [ImageFile(path.name, str(path)) for path in sorted(folder.iterdir())]
            return [outcome async for group in pipeline.run(stream(files)) for outcome in group]

    return asyncio.run(collect())


def failed(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(o.path, o.stage) for o in outcomes if isinstance(o, ImageFailure)]


def test_every_file_has_one_outcome_in_order(tmp_path: Path) -> None:
    (tmp_path / "2b.png").write_bytes(b"no image")
    outcomes = score(tmp_path, FakeTransport())
    paths = [o.result.path if isinstance(o, ScoredImage) else o.path for o in outcomes]
    assert paths == ["0.png", "1.png", "2.png", "2b.png", "3.png", "4.png", "5.png"]
    assert failed(outcomes) == [("2b.png", "read")]


def test_an_image_with_nan_maps_fails_alone(tmp_path: Path) -> None:
    outcomes = score(tmp_path, FakeTransport(nan={12}))
    assert failed(outcomes) == [("2.png", "infer")]
    assert "finite" in next(o.message for o in outcomes if isinstance(o, ImageFailure))


def test_an_image_that_the_server_refuses_fails_alone(tmp_path: Path) -> None:
    assert failed(score(tmp_path, FakeTransport(refused={11, 15}))) == [("1.png", "infer"), ("5.png", "infer")]


def test_a_server_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailable, match="blank image"):
        score(tmp_path, FakeTransport(refused={0, *range(10, 16)}))


def test_a_server_that_never_answers_does_not_fill_the_memory(tmp_path: Path) -> None:
    class SilentTransport(FakeTransport):
        async def infer(self, *arguments: object) -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()

    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "0.png"), image)
    taken = 0

    async def endless() -> Stream[ImageFile]:
        nonlocal taken
        while True:
            taken += 1
            yield ImageFile("0.png", str(tmp_path / "0.png"))

    async def run() -> int:
        with ThreadPoolExecutor(2) as executor:
            servers = await ServerPool.connect([SilentTransport()], wait_s=0)  # type: ignore[list-item]
            running = asyncio.ensure_future(anext(pipeline_over(servers, executor).run(endless())))
            before = -1
            while taken != before:
                before = taken
                await asyncio.sleep(0.3)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return before

    group = GROUP_BATCHES * 4
    assert asyncio.run(run()) <= (GROUPS_UNDER_WAY + 2) * group + 2 * DECODED_AHEAD

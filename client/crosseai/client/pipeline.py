"""From files to results: read, preprocess, infer, localize.

Each stage is a bounded asynchronous map over the one before it, so that decoding, the server and the box algorithm
work side by side and memory does not grow with the number of files. Decoding and boxes run in threads (OpenCV, the
DICOM decoders and the C++ core release the GIL); inference is asynchronous gRPC.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.discovery import image_id
from crosseai.client.explain import ExplainByProbability, ExplainPolicy, Targets
from crosseai.client.flow import Stream, batched, map_ordered, stream
from crosseai.client.transport import TritonTransport
from crosseai.contract import (
    BoxParameters,
    ContractError,
    Finding,
    ImageFailure,
    ImageResult,
    InferenceTimeout,
    InputError,
    ModelSpec,
    ServerError,
    ServerUnavailable,
    Stage,
    UnreadableImageError,
)
from crosseai.imaging import Radiograph, box_to_image_px, preprocess, read_radiograph
from crosseai.postproc import localize

MAPS = ("explained", "heatmaps", "gradient_maps")


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A radiograph ready for the model.

    Parameters
    ----------
    path
        Relative to the scored directory.
    image_id
        Hash of the file.
    radiograph
        The original image.
    model_input
        uint8 ``[1,S,S]``.
    """

    path: str
    image_id: str
    radiograph: Radiograph
    model_input: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ExplanationMaps:
    """The maps behind one finding: heat map float32 ``[h,w]``, gradient map uint8 ``[S,S]``."""

    heatmap: npt.NDArray[np.float32]
    gradient_map: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """A result with what pictures of it need; ``maps`` has one entry a finding."""

    result: ImageResult
    radiograph: Radiograph
    maps: tuple[ExplanationMaps, ...]


Prepared: TypeAlias = PreparedImage | ImageFailure
Outcome: TypeAlias = ScoredImage | ImageFailure


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The scoring pipeline over one server.

    Parameters
    ----------
    directory
        Files are named relative to it.
    transport
        Connection to the model.
    explain
        Chooses the classes to explain.
    boxes
        Parameters of the box algorithm.
    executor
        Threads for decoding and boxes.
    batch_size
        Images a request.
    in_flight
        Batches under way at a time.
    """

    directory: Path
    transport: TritonTransport
    explain: ExplainPolicy
    boxes: BoxParameters
    executor: Executor
    batch_size: int
    in_flight: int

    async def run(self, files: Iterable[Path]) -> Stream[Outcome]:
        """Score files; yields one outcome a file, in order.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If the server went away: the files not yet yielded were not scored.
        """
        prepared = map_ordered(self._prepare, stream(files), limit=2 * self.batch_size + (os.cpu_count() or 1))
        batches = batched(prepared, self.batch_size, counts=lambda item: isinstance(item, PreparedImage))
        async with aclosing(map_ordered(self._score, batches, limit=self.in_flight)) as scored:
            async for outcomes in scored:
                for outcome in outcomes:
                    yield outcome

    def name_of(self, path: Path) -> str:
        """How results name a file: relative to the scored directory; bytes that are no UTF-8 are escaped."""
        return os.fsencode(path.relative_to(self.directory)).decode("utf-8", "backslashreplace")

    async def _prepare(self, path: Path) -> Prepared:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, prepare, path, self.name_of(path), self.transport.spec)

    async def _score(self, batch: Sequence[Prepared]) -> list[Outcome]:
        """Outcomes of one batch, in its order."""
        images = [item for item in batch if isinstance(item, PreparedImage)]
        outcomes = iter(await self._score_or_fail(images))
        return [item if isinstance(item, ImageFailure) else next(outcomes) for item in batch]

    async def _score_or_fail(self, images: Sequence[PreparedImage]) -> list[Outcome]:
        """Score images; where the server refuses a batch, find the images that it refuses.

        A server that refuses even a blank image is as good as absent: that ends the run, and blames no image.
        """
        try:
            return await self._score_images(images)
        except (ServerUnavailable, InferenceTimeout):
            raise
        except ServerError as error:
            if len(images) > 1:
                return [outcome for image in images for outcome in await self._score_or_fail([image])]
            await self._score_blank()
            return [failure(images[0].path, error, "infer")]

    async def _score_blank(self) -> None:
        side = self.transport.spec.input_size
        try:
            await self.transport.infer(np.zeros((1, 1, side, side), np.uint8), np.full((1, 1), -1), ["logits", *MAPS])
        except ServerError as error:
            raise ServerUnavailable(f"the server cannot score a blank image: {error}") from error

    async def _score_images(self, images: Sequence[PreparedImage]) -> list[Outcome]:
        if not images:
            return []
        pixels = np.stack([image.model_input for image in images])
        if isinstance(self.explain, ExplainByProbability):
            logits = await self._logits(pixels)
            targets = [self.explain.targets(row) for row in self.transport.spec.probabilities(logits)]
            found = await self._maps(pixels, targets)
        else:
            targets = [self.explain.targets(Path(image.path).name) for image in images]
            found = await self._maps(pixels, targets)
            unexplained = [i for i, chosen in enumerate(targets) if not chosen]
            if unexplained:
                rest = await self._logits(pixels[unexplained])
                found |= {i: {"logits": row} for i, row in zip(unexplained, rest, strict=True)}
            logits = np.stack([found[i]["logits"] for i in range(len(images))])
        probabilities = self.transport.spec.probabilities(logits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, self._localize, images, probabilities, found)

    async def _logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits alone, which cost no reverse pass; float32 ``[N,C]``."""
        targets = np.full((len(pixels), 1), -1, np.int64)
        return (await self.transport.infer(pixels, targets, ["logits"]))["logits"]

    async def _maps(
        self, pixels: npt.NDArray[np.uint8], targets: Sequence[Targets]
    ) -> dict[int, dict[str, npt.NDArray[Any]]]:
        """Logits and maps of every image that has targets, by its position; one request for each number of targets."""
        groups: dict[int, list[int]] = defaultdict(list)
        for position, chosen in enumerate(targets):
            if chosen:
                groups[len(chosen)].append(position)
        found: dict[int, dict[str, npt.NDArray[Any]]] = {}
        for members in groups.values():
            wanted = np.array([targets[i] for i in members], np.int64)
            tensors = await self.transport.infer(pixels[members], wanted, ["logits", *MAPS])
            for row, position in enumerate(members):
                found[position] = {name: tensor[row] for name, tensor in tensors.items()}
        return found

    def _localize(
        self,
        images: Sequence[PreparedImage],
        probabilities: npt.NDArray[np.float32],
        found: dict[int, dict[str, npt.NDArray[Any]]],
    ) -> list[Outcome]:
        """Boxes for all maps of a batch in one call of the C++ core; an image with a NaN fails alone."""
        finite = [
            bool(np.isfinite(row).all() and np.isfinite(found.get(i, {}).get("heatmaps", 0)).all())
            for i, row in enumerate(probabilities)
        ]
        explained = [(i, k) for i in sorted(found) if finite[i] for k in range(len(found[i].get("explained", ())))]
        maps = [ExplanationMaps(found[i]["heatmaps"][k], found[i]["gradient_maps"][k]) for i, k in explained]
        findings: dict[int, list[tuple[Finding, ExplanationMaps]]] = defaultdict(list)
        if maps:
            boxes, scores = localize(
                np.stack([m.heatmap for m in maps]),
                np.stack([m.gradient_map for m in maps]),
                **self.boxes.keywords(),
                threads=1,
            )
            spec = self.transport.spec
            for (i, k), one, box, score in zip(explained, maps, boxes.tolist(), scores.tolist(), strict=True):
                c = int(found[i]["explained"][k])
                height, width = images[i].radiograph.pixels.shape
                finding = Finding(
                    disease=spec.classes[c],
                    probability=float(probabilities[i, c]),
                    box_image_px=box_to_image_px(tuple(box), spec.input_size, height, width),
                    box_model_px=tuple(box),
                    score=score,
                )
                findings[i].append((finding, one))
        return [
            self._result(image, row, findings[i]) if finite[i] else self._not_finite(image)
            for i, (image, row) in enumerate(zip(images, probabilities, strict=True))
        ]

    def _not_finite(self, image: PreparedImage) -> ImageFailure:
        reason = f"model version {self.transport.model_version}: expected finite logits and maps, found NaN or infinity"
        return failure(image.path, ContractError(reason), "infer")

    def _result(
        self,
        image: PreparedImage,
        probabilities: npt.NDArray[np.float32],
        findings: Sequence[tuple[Finding, ExplanationMaps]],
    ) -> ScoredImage:
        spec = self.transport.spec
        height, width = image.radiograph.pixels.shape
        result = ImageResult(
            image_id=image.image_id,
            path=image.path,
            width=width,
            height=height,
            model_version=self.transport.model_version,
            probabilities=dict(zip(spec.classes, probabilities.tolist(), strict=True)),
            positive=dict(zip(spec.classes, spec.positive(probabilities).tolist(), strict=True)),
            findings=tuple(finding for finding, _ in findings),
        )
        return ScoredImage(result, image.radiograph, tuple(maps for _, maps in findings))


def prepare(path: Path, name: str, spec: ModelSpec) -> Prepared:
    """Read and preprocess one file; what cannot be scored becomes a failure, never an exception."""
    stage: Stage = "read"
    try:
        content = image_id(path)
        radiograph = read_radiograph(path)
        stage = "preprocess"
        return PreparedImage(name, content, radiograph, preprocess(radiograph, spec))
    except InputError as error:
        return failure(name, error, stage)
    except Exception as error:
        # Only the kind is told: the message may hold identifiers.
        return failure(name, UnreadableImageError(f"{path}: the decoder failed with {type(error).__name__}"), stage)


def failure(path: str, error: Exception, stage: Stage) -> ImageFailure:
    """The record of a file that could not be scored."""
    return ImageFailure(path=path, error=type(error).__name__, message=str(error), stage=stage)

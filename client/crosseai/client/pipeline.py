"""The stages of a run, side by side: decode, infer, find boxes, write what is made of each image.

Each stage is a bounded asynchronous map over the one before it, so that decoding, the server and the box algorithm
work at the same time and memory does not grow with the number of files. Files go through in groups of fixed size,
in the order of their listing: a group is scored and recorded as a whole. Decoding and boxes run in threads (OpenCV,
the DICOM decoders and the C++ core release the GIL); inference is asynchronous gRPC.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from crosseai.client.findings import Localizer, Scored, ScoredImage
from crosseai.client.flow import Stream, batched, map_ordered
from crosseai.client.inference import Inference
from crosseai.client.meter import Meter
from crosseai.client.prepare import MovedImage, Prepared, PreparedImage, prepare
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import ImageResult
from crosseai.imaging import DEFAULT_POLICY, ReadPolicy

GROUP_BATCHES = 8
"""Batches in a group: enough that the few positive images of a group fill batches of their own."""

GROUPS_UNDER_WAY = 3
DECODED_AHEAD = 64

Outcome: TypeAlias = Scored | MovedImage


@dataclass(frozen=True, slots=True)
class Pipeline:
    """From files to outcomes.

    Parameters
    ----------
    inference
        Asks the model.
    localizer
        Makes results of its answers.
    meter
        Counts and clocks.
    executor
        Threads for decoding and boxes.
    batch_size
        Images a request.
    decoders
        Free places for files being decoded.
    earlier
        Gives the result of a file that was moved; see :func:`crosseai.client.prepare.prepare`.
    reading
        Which radiographs are accepted and how they are shown.
    write
        Writes what is wanted of an image, and returns what became of it; None where nothing is wanted.
    patience_s
        How long a group that is not full waits for the next file, in seconds; None for as long as it takes.
    """

    inference: Inference
    localizer: Localizer
    meter: Meter
    executor: Executor
    batch_size: int
    decoders: asyncio.Semaphore
    earlier: Callable[[str, str], ImageResult | None] = lambda _, __: None
    reading: ReadPolicy = DEFAULT_POLICY
    write: Callable[[ScoredImage], Awaitable[Scored]] | None = None
    patience_s: float | None = None

    async def run(self, files: Stream[ImageFile]) -> Stream[list[Outcome]]:
        """Score files; yields groups of outcomes, one a file, in order.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If the server went away: the files not yet yielded were not scored.
        """
        prepared = map_ordered(self._prepare, files, limit=DECODED_AHEAD)
        groups = batched(prepared, GROUP_BATCHES * self.batch_size, self.patience_s)
        async with aclosing(map_ordered(self._score, groups, limit=GROUPS_UNDER_WAY)) as scored:
            async for outcomes in scored:
                yield outcomes

    async def _prepare(self, file: ImageFile) -> Prepared:
        async with self.decoders:
            return await self.meter.in_thread("decode", self.executor, self._prepared, file)

    def _prepared(self, file: ImageFile) -> Prepared:
        return prepare(file, self.localizer.spec, earlier=self.earlier, reading=self.reading)

    async def _score(self, group: Sequence[Prepared]) -> list[Outcome]:
        """Outcomes of one group, in its order."""

        def count(images: int) -> None:
            self.meter.done += images

        images = [item for item in group if isinstance(item, PreparedImage)]
        count(len(group) - len(images))
        replies = await self.inference.replies(images, count)
        scored = iter(await self.meter.in_thread("boxes", self.executor, self.localizer.results, images, replies))
        outcomes = [next(scored) if isinstance(item, PreparedImage) else item for item in group]
        return list(await asyncio.gather(*map(self._written, outcomes)))

    async def _written(self, outcome: Outcome) -> Outcome:
        return await self.write(outcome) if self.write and isinstance(outcome, ScoredImage) else outcome

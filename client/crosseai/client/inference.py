"""From model inputs to the model's answers: which requests are sent, and in which batches.

The last bits of a probability depend on which images share a batch. So batches are made from a fixed group of images
in a fixed way, and two requests are never under way together when a server's dynamic batcher could merge them: those
of full size do not fit into one batch, and a smaller one waits for others of its shape; a server that was outrun by
another gets nothing before it has answered (:mod:`crosseai.client.servers.member`). A run that was interrupted and
continued then writes the same bytes as one that was not, if no other client uses the server.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.explain import ExplainByName, ExplainPolicy, Targets
from crosseai.client.prepare import PreparedImage
from crosseai.client.servers.pool import ServerPool
from crosseai.contract import AccessRefused, InferenceTimeout, ServerError, ServerUnavailable

MAPS = ("explained", "heatmaps", "gradient_maps")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says about one image.

    Parameters
    ----------
    logits
        float32 ``[C]``.
    explained
        int64 ``[K]``, the explained classes; K may be 0.
    heatmaps
        float32 ``[K,h,w]``.
    gradient_maps
        uint8 ``[K,S,S]``.
    """

    logits: npt.NDArray[np.float32]
    explained: npt.NDArray[np.int64]
    heatmaps: npt.NDArray[np.float32]
    gradient_maps: npt.NDArray[np.uint8]


Reply: TypeAlias = Answer | ServerError
"""An answer, or why the server refuses this one image."""


class Inference:
    """Answers for groups of images.

    Parameters
    ----------
    server
        Runs the model.
    explain
        Chooses the classes to explain.
    batch_size
        Images a request.
    """

    def __init__(self, server: ServerPool, explain: ExplainPolicy, batch_size: int) -> None:
        self._server = server
        self._explain = explain
        self._batch_size = batch_size
        self._one_at_a_time: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        _, _, height, width = next(t.shape for t in server.spec.outputs if t.name == "heatmaps")
        side = server.spec.input_size
        self._no_maps = (
            np.empty(0, np.int64),
            np.empty((0, int(height), int(width)), np.float32),
            np.empty((0, side, side), np.uint8),
        )

    async def replies(
        self, images: Sequence[PreparedImage], answered: Callable[[int], None] = lambda _: None
    ) -> list[Reply]:
        """The model's reply for each image of a group; ``answered`` is told of images as they get theirs.

        Where probabilities decide what is explained, all images are asked for logits alone, which cost no reverse
        pass, and then the positive ones for maps.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If the server went away.
        """
        pixels = [image.model_input for image in images]
        if isinstance(self._explain, ExplainByName):
            named = [self._explain.targets(Path(image.path).name) for image in images]
            return await self._ask(pixels, named, answered)
        replies = await self._ask(pixels, [()] * len(pixels), answered)
        probabilities = self._server.spec.probabilities
        targets = {
            i: chosen
            for i, reply in enumerate(replies)
            if isinstance(reply, Answer) and (chosen := self._explain.targets(probabilities(reply.logits)))
        }
        explained = await self._ask([pixels[i] for i in targets], list(targets.values()))
        for i, reply in zip(targets, explained, strict=True):
            first = replies[i]
            if isinstance(reply, Answer) and isinstance(first, Answer):
                # The logits that made the choice stay the image's; these could differ in the last bit.
                reply = replace(reply, logits=first.logits)
            replies[i] = reply
        return replies

    async def _ask(
        self,
        pixels: Sequence[npt.NDArray[np.uint8]],
        targets: Sequence[Targets],
        answered: Callable[[int], None] = lambda _: None,
    ) -> list[Reply]:
        """Replies in order; images with equally many targets share requests."""
        groups: dict[int, list[int]] = defaultdict(list)
        for position, chosen in enumerate(targets):
            groups[len(chosen)].append(position)
        size = self._batch_size
        batches = [members[i : i + size] for members in groups.values() for i in range(0, len(members), size)]
        replies: dict[int, Reply] = {}

        async def request(batch: Sequence[int]) -> None:
            images = np.stack([pixels[i] for i in batch])
            found = await self._request(images, np.array([targets[i] for i in batch], np.int64))
            replies.update(zip(batch, found, strict=True))
            answered(len(batch))

        await asyncio.gather(*(request(batch) for batch in batches))
        return [replies[position] for position in range(len(pixels))]

    async def _request(self, pixels: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64]) -> list[Reply]:
        """Replies of one batch; where the server refuses it, find the images that it refuses."""
        try:
            return await self._answers(pixels, targets)
        except (ServerUnavailable, InferenceTimeout, AccessRefused):
            raise
        except ServerError as error:
            if len(pixels) > 1:
                each = range(len(pixels))
                return [reply for i in each for reply in await self._request(pixels[i : i + 1], targets[i : i + 1])]
            return [error]

    async def _answers(self, pixels: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64]) -> list[Reply]:
        images, maps = targets.shape
        asked = targets if maps else np.full((images, 1), -1, np.int64)
        # Triton merges requests of equal shapes.
        alone = self._one_at_a_time[asked.shape[1]] if images < self._batch_size else nullcontext()
        async with alone:
            tensors = await self._server.infer(pixels, asked, ["logits", *MAPS] if maps else ["logits"])
        if not maps:
            return [Answer(logits, *self._no_maps) for logits in tensors["logits"]]
        return [Answer(*rows) for rows in zip(*(tensors[name] for name in ("logits", *MAPS)), strict=True)]

"""How files are scored, on this machine or another one: all stages from file to journal entry."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from crosseai.client.explain import ExplainPolicy
from crosseai.client.findings import Localizer, ScoredImage
from crosseai.client.flow import Stream, map_ordered
from crosseai.client.inference import Inference
from crosseai.client.meter import Meter
from crosseai.client.outputs import Outputs, write_image_outputs
from crosseai.client.pipeline import Outcome, Pipeline
from crosseai.client.prepare import MovedImage, failure
from crosseai.client.records.journal import Entry
from crosseai.client.servers.pool import ServerPool
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import BoxParameters, ImageResult, InputError, ModelIdentity
from crosseai.imaging import ReadPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What scoring depends on beside files and servers; may be sent to another machine.

    Parameters
    ----------
    folder
        Where pictures and DICOM objects are written.
    explain
        Chooses the classes to explain.
    boxes
        Parameters of the box algorithm.
    outputs
        What is written of each image.
    reading
        Which radiographs are accepted and how they are shown.
    batch_size
        Images a request.
    earlier
        Gives the result of a file that was moved; see :func:`crosseai.client.prepare.prepare`.
    patience_s
        How long a group that is not full waits for the next file, in seconds; None for as long as it takes.
    """

    folder: Path
    explain: ExplainPolicy
    boxes: BoxParameters
    outputs: Outputs
    reading: ReadPolicy
    batch_size: int
    earlier: Callable[[str, str], ImageResult | None]
    patience_s: float | None = None

    async def entries(
        self,
        files: Stream[ImageFile],
        servers: ServerPool,
        *,
        meter: Meter,
        executor: Executor,
        decoders: asyncio.Semaphore,
    ) -> Stream[list[Entry]]:
        """Score files; yields groups of entries, one a file, in order, when all that belongs to them is written.

        Raises
        ------
        ServerUnavailable, InferenceTimeout
            If the server went away: the files not yet yielded were not scored.
        OutputError
            If something cannot be written.
        """
        served = servers.model
        pipeline = Pipeline(
            inference=Inference(servers, self.explain, self.batch_size),
            localizer=Localizer(served.spec, served.version, self.boxes),
            meter=meter,
            executor=executor,
            batch_size=self.batch_size,
            decoders=decoders,
            earlier=self.earlier,
            reading=self.reading,
            keep_radiographs=self.outputs.of_images,
            patience_s=self.patience_s,
        )
        model = ModelIdentity(served.spec.name, served.version, served.sha256)
        writers = asyncio.Semaphore(os.cpu_count() or 1)  # more would wait for each other, and hold their pictures

        async def written(outcome: Outcome) -> Outcome:
            """Write what is wanted of an image; one that it cannot be made for fails."""
            if not isinstance(outcome, ScoredImage) or outcome.radiograph is None:
                return outcome
            arguments = (outcome, outcome.radiograph, self.folder, self.outputs, self.boxes, model)
            try:
                async with writers:
                    await meter.in_thread("write", executor, write_image_outputs, *arguments)
            except InputError as error:
                return failure(outcome.result.path, error, "write")
            return outcome

        async def entries_of(group: Sequence[Outcome]) -> list[Entry]:
            return [_entry(outcome) for outcome in await asyncio.gather(*map(written, group))]

        async with aclosing(map_ordered(entries_of, pipeline.run(files), limit=1)) as groups:
            async for entries in groups:
                yield entries


def _entry(outcome: Outcome) -> Entry:
    if isinstance(outcome, MovedImage):
        return Entry(outcome.result, replaces=outcome.moved_from)
    return Entry(outcome.result if isinstance(outcome, ScoredImage) else outcome)

"""How files are scored, on this machine or another one: all stages from file to journal entry."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from crosseai.client.explain import ExplainPolicy
from crosseai.client.findings import Localizer, Scored, ScoredImage
from crosseai.client.flow import Stream
from crosseai.client.inference import Inference
from crosseai.client.meter import Meter
from crosseai.client.outputs import Outputs, write_image_outputs
from crosseai.client.pipeline import Outcome, Pipeline
from crosseai.client.prepare import MovedImage, failure, read_again
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
        model = ModelIdentity(served.spec.name, served.version, served.sha256)
        writers = asyncio.Semaphore(os.cpu_count() or 1)  # more would wait for each other, and hold their pictures

        async def write(image: ScoredImage) -> Scored:
            """Write what is wanted of an image; one that it cannot be made for fails."""
            try:
                async with writers:
                    await meter.in_thread("write", executor, self._write, image, model)
            except InputError as error:
                return failure(image.result.path, error, "write")
            return image

        pipeline = Pipeline(
            inference=Inference(servers, self.explain, self.batch_size),
            localizer=Localizer(served.spec, served.version, self.boxes),
            meter=meter,
            executor=executor,
            batch_size=self.batch_size,
            decoders=decoders,
            earlier=self.earlier,
            reading=self.reading,
            write=write if self.outputs.of_images else None,
            patience_s=self.patience_s,
        )
        async with aclosing(pipeline.run(files)) as groups:
            async for outcomes in groups:
                yield list(map(_entry, outcomes))

    def _write(self, image: ScoredImage, model: ModelIdentity) -> None:
        """The file is read again: to hold the pixels of all groups under way would take gigabytes."""
        radiograph = read_again(image.location, image.result.image_id, self.reading)
        write_image_outputs(image, radiograph, self.folder, self.outputs, self.boxes, model)


def _entry(outcome: Outcome) -> Entry:
    if isinstance(outcome, MovedImage):
        return Entry(outcome.result, replaces=outcome.moved_from)
    return Entry(outcome.result if isinstance(outcome, ScoredImage) else outcome)

"""What is left to do: the files of a source against the journal of earlier runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from crosseai.client.explain import ExplainPolicy, explained_alike
from crosseai.client.records.journal import Journal
from crosseai.client.sources.source import Source
from crosseai.client.sources.storage import ImageFile
from crosseai.contract import ImageResult

_BATCH = 8192


class Worklist:
    """Files that have no outcome yet.

    Parameters
    ----------
    source
        The files.
    journal
        Outcomes of earlier runs.
    retry_failed
        Whether a failure is no outcome.

    Attributes
    ----------
    finished, failed
        Names of files with an outcome, and of those that failed.
    total, done
        Files of the source, and those of them that are finished.
    """

    def __init__(self, source: Source, journal: Journal, *, retry_failed: bool) -> None:
        self._source = source
        self._journal = journal
        self.failed = journal.failed
        self.finished = journal.finished.without(journal.failed) if retry_failed else journal.finished
        seen = np.zeros(len(self.finished), np.bool_)
        self.total = self.done = 0
        if not len(self.finished):
            self.total = len(source)
        else:
            for files in _batches(iter(source)):
                found = self.finished.find([file.name for file in files])
                seen[found[found >= 0]] = True
                self.total += len(files)
                self.done += int((found >= 0).sum())
        self._seen = seen

    def files(self) -> Iterator[ImageFile]:
        """The files, as they are found; their number does not matter."""
        for files in _batches(iter(self._source)):
            unfinished = self.finished.find([file.name for file in files]) < 0
            yield from (file for file, wanted in zip(files, unfinished, strict=True) if wanted)

    def moved(self, policy: ExplainPolicy) -> "Moved":
        """The results of files that are no longer where they were."""
        if self._seen.all():
            return Moved(policy, {})
        results = {}
        for result in self._journal.results():
            place = self.finished.find([result.path])[0]
            if place >= 0 and not self._seen[place]:
                results[result.image_id] = result
        return Moved(policy, results)


@dataclass(frozen=True, slots=True)
class Moved:
    """Finds the result of a file that was moved, by its ``image_id`` and new name."""

    policy: ExplainPolicy
    results: dict[str, ImageResult]

    def __call__(self, image_id: str, name: str) -> ImageResult | None:
        """The result, if it holds under the new name."""
        known = self.results.get(image_id)
        return known if known and explained_alike(self.policy, known.path, name) else None


def _batches(files: Iterator[ImageFile]) -> Iterator[list[ImageFile]]:
    while batch := list(islice(files, _BATCH)):
        yield batch

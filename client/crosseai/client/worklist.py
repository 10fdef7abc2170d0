"""What is left to do: the files of a directory against the journal of earlier runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

from crosseai.client.discovery import discover, name_of
from crosseai.client.explain import ExplainPolicy, explained_alike
from crosseai.client.journal import Journal
from crosseai.contract import ImageFailure, ImageResult


class Worklist:
    """Files that have no outcome yet.

    Parameters
    ----------
    directory
        Where the files are.
    output
        Folder of results, left out where it lies inside ``directory``.
    journal
        Outcomes of earlier runs.
    retry_failed
        Whether a failure is no outcome.

    Attributes
    ----------
    finished
        Names of files with an outcome.
    total, done
        Files in the directory, and those of them that are finished.
    """

    def __init__(self, directory: Path, output: Path, journal: Journal, *, retry_failed: bool) -> None:
        self._directory = directory
        self._output = output
        self._journal = journal
        scored = journal.paths(ImageResult)
        self.finished = scored if retry_failed else scored | journal.paths(ImageFailure)
        self.total = self.done = 0
        self._missing = set(scored)
        for file in discover(directory, output):
            name = name_of(file, directory)
            self.total += 1
            self.done += name in self.finished
            self._missing.discard(name)

    def files(self) -> Iterator[Path]:
        """The files, as they are found; their number does not matter."""
        for file in discover(self._directory, self._output):
            if name_of(file, self._directory) not in self.finished:
                yield file

    def moved(self, policy: ExplainPolicy) -> Callable[[str, str], ImageResult | None]:
        """A function that finds the result of a file that was moved, by its ``image_id`` and new name."""
        results: dict[str, ImageResult] = {}
        if self._missing:
            for shard in self._journal.shards():
                results |= {r.image_id: r for r in shard if isinstance(r, ImageResult) and r.path in self._missing}

        def earlier(image_id: str, name: str) -> ImageResult | None:
            known = results.get(image_id)
            return known if known and explained_alike(policy, known.path, name) else None

        return earlier

"""Sets of file names that take a few bytes a name."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

_DIGEST_BYTES = 16


class NameSet:
    """A set of names, kept as their sorted 128-bit BLAKE2b digests: 16 bytes a name, however long it is.

    Two names of ten million share a digest with a probability of about 1e-25.

    Parameters
    ----------
    names
        What the set holds.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._added = bytearray()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Put a name into the set; only before the first question to it."""
        self._added += _digest(name)

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.find([name])[0] >= 0)

    def find(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Where each name is in the set, 0 to its length, and -1 for those that are not."""
        return self._places(np.array([*map(_digest, names)], self._digests.dtype))

    def without(self, others: "NameSet") -> "NameSet":
        """The names that are not in another set."""
        rest = NameSet()
        rest._digests = self._digests[others._places(self._digests) < 0]
        return rest

    @cached_property
    def _digests(self) -> npt.NDArray[np.bytes_]:
        digests = np.frombuffer(self._added, f"S{_DIGEST_BYTES}")
        digests.sort()
        return digests

    def _places(self, wanted: npt.NDArray[np.bytes_]) -> npt.NDArray[np.intp]:
        if not len(self):
            return np.full(len(wanted), -1, np.intp)
        places = np.minimum(self._digests.searchsorted(wanted), len(self) - 1)
        return np.where(self._digests[places] == wanted, places, -1)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).digest()

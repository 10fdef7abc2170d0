"""Sets of file names that take a few bytes a name."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_DIGEST_BYTES = 16


class NameSet:
    """A fixed set of names, kept as their sorted 128-bit BLAKE2b digests: 16 bytes a name, however long it is.

    Two names of ten million share a digest with a probability of about 1e-25.

    Parameters
    ----------
    names
        What the set holds.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._digests = _digests(names)
        self._digests.sort()

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.find([name])[0] >= 0)

    def find(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Where each name is in the set, 0 to its length, and -1 for those that are not."""
        if not len(self):
            return np.full(len(names), -1, np.intp)
        wanted = _digests(names)
        places = np.minimum(self._digests.searchsorted(wanted), len(self) - 1)
        return np.where(self._digests[places] == wanted, places, -1)


def _digests(names: Iterable[str]) -> npt.NDArray[np.bytes_]:
    buffer = bytearray()
    for name in names:
        buffer += hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).digest()
    return np.frombuffer(buffer, f"S{_DIGEST_BYTES}")

"""What the caller decides about reading: which views, which window, how large, and whether patients are named."""

import re
from dataclasses import dataclass

from crosseai.contract import InputError

_VIEW = re.compile(r"[A-Z0-9_ ]{1,16}")  # DICOM's code string, PS3.5 section 6.2


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """How radiographs are read.

    Parameters
    ----------
    views
        Accepted values of View Position; a DICOM file that states another one is refused, one that states none is
        accepted with a warning. Empty: every view is accepted. Models learn from frontal views, so lateral ones would
        be scored with confidence and without sense.
    window
        Which of a file's windows is shown, counted from 1, even where the file has a VOI LUT; a file with fewer
        windows is refused. None: the first VOI LUT, else the first window.
    max_pixels
        Greatest number of pixels that is decoded; a 43 cm detector at 0.1 mm has 18.5 million.
    with_identifiers
        Whether radiographs and error messages name patient, study and image.

    Raises
    ------
    InputError
        If a value makes no sense.
    """

    views: tuple[str, ...] = ("PA", "AP")
    window: int | None = None
    max_pixels: int = 64 * 2**20
    with_identifiers: bool = False

    def __post_init__(self) -> None:
        for view in self.views:
            if not _VIEW.fullmatch(view):
                raise InputError(f"views: expected capital letters such as PA and AP, found {view!r}")
        if self.window is not None and self.window < 1:
            raise InputError(f"window: expected a number from 1, found {self.window}")
        if self.max_pixels < 1:
            raise InputError(f"max_pixels: expected at least 1, found {self.max_pixels}")

    @property
    def max_file_bytes(self) -> int:
        """Greatest file read and greatest deflated data set inflated: two times 16 bits a pixel, and 16 MiB."""
        return 4 * self.max_pixels + 16 * 2**20


DEFAULT_POLICY = ReadPolicy()

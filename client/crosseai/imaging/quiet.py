"""Keep warnings of pydicom and highdicom, which quote header values, out of the way and out of logs."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_PYDICOM = r"pydicom|highdicom|crosseai\.(imaging|client\.formats)"
"""Modules that the warnings of pydicom and highdicom are attributed to."""

_lock = threading.Lock()
_users = 0
_caught: "warnings.catch_warnings[None]"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Ignore what pydicom and highdicom warn and log, for as long as any thread is inside.

    pydicom comments on every departure from the standard, quoting header values; whatever matters raises an error
    anyhow. Filters of warnings and loggers belong to the process: if each thread set and restored its own, threads that
    overlap would restore each other's. So the first to enter sets the filters and the last to leave restores them.
    """
    global _users, _caught
    logger = logging.getLogger("pydicom")
    with _lock:
        if _users == 0:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.filterwarnings("ignore", module=_PYDICOM)
            logger.addFilter(_drop)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                logger.removeFilter(_drop)
                _caught.__exit__(None, None, None)


def _drop(_record: logging.LogRecord) -> bool:
    return False

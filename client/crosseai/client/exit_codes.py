"""Exit statuses of ``crosseai-client``, and one message for each kind of error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from crosseai.contract import ContractError, CrossEAIError, InputError, ServerError

EXIT_FAILED, EXIT_USAGE, EXIT_SERVER, EXIT_INTERRUPTED = 1, 2, 3, 130


@contextmanager
def exit_codes(advice: Callable[[], str] = lambda: "") -> Iterator[None]:
    """End the process with the right status.

    Parameters
    ----------
    advice
        Gives what is added to the message where the work was cut short.
    """
    try:
        yield
    except KeyboardInterrupt:
        _end(f"interrupted{advice()}", EXIT_INTERRUPTED)
    except ServerError as error:
        _end(f"server: {error}{advice()}", EXIT_SERVER)
    except (InputError, ContractError) as error:
        _end(f"error: {error}", EXIT_USAGE)
    except CrossEAIError as error:
        _end(f"error: {error}", EXIT_FAILED)


def _end(message: str, status: int) -> None:
    click.echo(message, err=True)
    sys.exit(status)

"""Exit statuses of ``crosseai-client``, and one message for each kind of error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from crosseai.contract import ContractError, CrossEAIError, InputError, ServerError

EXIT_FAILED, EXIT_USAGE, EXIT_SERVER, EXIT_INTERRUPTED = 1, 2, 3, 130


def _to_stderr(message: str) -> None:
    click.echo(message, err=True)


@contextmanager
def exit_codes(advice: Callable[[], str] = lambda: "", say: Callable[[str], None] = _to_stderr) -> Iterator[None]:
    """End the process with the right status.

    Parameters
    ----------
    advice
        Gives what is added to the message where the work was cut short.
    say
        Gets the message.
    """
    try:
        yield
    except KeyboardInterrupt:
        message, status = f"interrupted{advice()}", EXIT_INTERRUPTED
    except ServerError as error:
        message, status = f"server: {error}{advice()}", EXIT_SERVER
    except (InputError, ContractError) as error:
        message, status = f"error: {error}", EXIT_USAGE
    except CrossEAIError as error:
        message, status = f"error: {error}", EXIT_FAILED
    else:
        return
    say(message)
    sys.exit(status)

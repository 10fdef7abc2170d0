"""Options that become one argument."""

from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from crosseai.client.options import read_options
from crosseai.contract import InputError
from crosseai.imaging import ReadPolicy


@click.command()
@read_options
def command(reading: Callable[[], ReadPolicy]) -> None:
    """Say what was understood."""
    click.echo(repr(reading()))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ReadPolicy()),
        (["--views", "PA, LL"], ReadPolicy(views=("PA", "LL"))),
        (["--views", "any"], ReadPolicy(views=())),
        (["--window", "2", "--max-pixels", "1000"], ReadPolicy(window=2, max_pixels=1000)),
        (["--with-identifiers"], ReadPolicy(with_identifiers=True)),
    ],
)
def test_how_radiographs_are_read(arguments: list[str], expected: ReadPolicy) -> None:
    assert CliRunner().invoke(command, arguments).output == f"{expected!r}\n"


def test_a_wrong_value_is_the_commands_error() -> None:
    assert isinstance(CliRunner().invoke(command, ["--window", "0"]).exception, InputError)

"""Click commands that end with a message instead of a traceback; shared by training and export."""

from typing import Any

import click

from crosseai.contract import CrossEAIError


class Command(click.Command):
    """Ends with exit code 2 and one line when the input cannot be used."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except CrossEAIError as error:
            raise click.UsageError(str(error), context) from error


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

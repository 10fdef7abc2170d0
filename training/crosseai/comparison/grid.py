"""Tables of text, and the ways they are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crosseai.training.bootstrap import Estimate


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text.

    Parameters
    ----------
    title
        What it shows.
    header
        Names of the columns.
    rows
        Cells; the first of each row is its name.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns in line, figures to the right."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        padded = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in padded)])

    def markdown(self, level: int = 2) -> str:
        """A heading of that level, and the table."""
        lines = [self.header, ["---", *("--:" for _ in self.header[1:])], *self.rows]
        return "\n".join([f"{'#' * level} {self.title}", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def latex(self) -> str:
        """A ``tabular`` for the package booktabs."""
        rows = [f"{' & '.join(map(_escaped, line))} \\\\" for line in self.rows]
        return "\n".join(
            [
                f"% {self.title}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                f"{' & '.join(map(_escaped, self.header))} \\\\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )


def cell(figure: Estimate, *, sign: str = "") -> str:
    """A figure and its interval, as ``0.73 (.61 .84)``; a dash where it is not defined.

    Parameters
    ----------
    sign
        ``+`` to mark positive figures, too.
    """
    if math.isnan(figure.value):
        return "-"
    low, high = (f"{bound:{sign}.2f}".replace("0.", ".") for bound in (figure.low, figure.high))
    return f"{figure.value:{sign}.2f} ({low} {high})"


def _escaped(text: str) -> str:
    for special in "&%_#":
        text = text.replace(special, f"\\{special}")
    return text.replace("<", "$<$").replace(">", "$>$")

import numpy as np

from crosseai.comparison.grid import Grid, cell
from crosseai.training.bootstrap import Estimate

GRID = Grid("Shares & more", ("", "T=0.1", "IoU > 0.5"), [("SCALP_a", "1.00", "50 %"), ("x", "-", "0.1")])


def test_text() -> None:
    assert GRID.text().splitlines() == [
        "Shares & more",
        "           T=0.1  IoU > 0.5",
        "  SCALP_a   1.00       50 %",
        "  x            -        0.1",
    ]


def test_markdown() -> None:
    assert GRID.markdown().splitlines() == [
        "## Shares & more",
        "",
        "|  | T=0.1 | IoU > 0.5 |",
        "| --- | --: | --: |",
        "| SCALP_a | 1.00 | 50 % |",
        "| x | - | 0.1 |",
    ]


def test_latex() -> None:
    lines = GRID.latex().splitlines()
    assert lines[1] == r"\begin{tabular}{lrr}"
    assert r" & T=0.1 & IoU $>$ 0.5 \\" in lines
    assert r"SCALP\_a & 1.00 & 50 \% \\" in lines


def test_cells() -> None:
    assert cell(Estimate(0.731, 0.614, 0.842)) == "0.73 (.61 .84)"
    assert cell(Estimate(1, 0.9, 1)) == "1.00 (.90 1.00)"
    assert cell(Estimate(-0.05, -0.1, 0.02), sign="+") == "-0.05 (-.10 +.02)"
    assert cell(Estimate(np.nan, np.nan, np.nan)) == "-"

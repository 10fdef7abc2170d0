from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.evaluation import evaluate_boxes, intersection_over_union, read_boxes_csv
from crosseai.contract import InputError

COLUMNS = ("image_id", "disease", "x0", "y0", "x1", "y1")
SIDE = st.lists(st.integers(0, 12), min_size=2, max_size=2, unique=True).map(sorted)
BOX = st.tuples(SIDE, SIDE).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


def table(*rows: tuple) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}


@given(BOX, BOX)
def test_iou_equals_counting_pixels(a: tuple, b: tuple) -> None:
    first, second = np.zeros((2, 12, 12), bool)
    first[a[1] : a[3], a[0] : a[2]] = True
    second[b[1] : b[3], b[0] : b[2]] = True
    expected = (first & second).sum() / (first | second).sum()
    assert intersection_over_union(a, b) == pytest.approx(expected)


def test_table_by_hand() -> None:
    truth = table(
        ("a", "Mass", 0, 0, 10, 10),
        ("b", "Mass", 0, 0, 10, 10),
        ("b", "Nodule", 0, 0, 4, 4),
    )
    predicted = table(("a", "Mass", 0, 0, 10, 5), ("b", "Nodule", 0, 0, 4, 4), ("b", "Effusion", 0, 0, 9, 9))
    result = evaluate_boxes(predicted, truth, thresholds=(0.5, 0.6), resamples=200)
    assert result.diseases == ("Mass", "Nodule", "Mean")
    assert result.boxes == (2, 1, 3)
    assert result.mean_iou == (0.25, 1.0, 0.625)
    np.testing.assert_allclose(result.accuracy, [[0.5, 0.0], [1.0, 1.0], [0.75, 0.5]])
    assert (result.low <= result.accuracy).all()
    assert (result.accuracy <= result.high).all()


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered, rounds, n = np.random.default_rng(0), 0, 60, 80
    for round_ in range(rounds):
        hit = rng.random(n) < 0.3
        truth = table(*((f"{i}", "Mass", 0, 0, 2, 2) for i in range(n)))
        predicted = table(*((f"{i}", "Mass", 0, 0, 2, 2) for i in range(n) if hit[i]))
        result = evaluate_boxes(predicted, truth, thresholds=(0.5,), resamples=200, seed=round_)
        covered += bool(result.low[0, 0] <= 0.3 <= result.high[0, 0])
    assert 0.85 <= covered / rounds <= 1.0


def test_refused() -> None:
    box = ("a", "Mass", 0, 0, 1, 1)
    with pytest.raises(InputError, match="found none"):
        evaluate_boxes(table(box), table())
    with pytest.raises(InputError, match="expected one box of Mass for image a"):
        evaluate_boxes(table(box, ("a", "Mass", 0, 0, 2, 2)), table(box))
    with pytest.raises(InputError, match="expected the columns"):
        evaluate_boxes({"image_id": ["a"]}, table(box))


def test_a_message_names_a_missing_file_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_boxes_csv(tmp_path / "absent.csv")
    assert str(refused.value) == f"{tmp_path}/absent.csv: cannot be read as a CSV file: No such file or directory"


def test_boxes_csv(tmp_path: Path) -> None:
    file = tmp_path / "BBox_List_2017.csv"
    file.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,1.5,2,3,4,,,\n")
    assert read_boxes_csv(file) == [("a.png", "Infiltration", 1.5, 2.0, 3.0, 4.0)]
    file.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1.5,2,x\n")
    with pytest.raises(InputError, match="line 2"):
        read_boxes_csv(file)

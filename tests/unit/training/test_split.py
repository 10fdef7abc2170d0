"""No patient in two parts, whatever the data set."""

import pytest

from crosseai.contract import InputError
from crosseai.training.split import PARTS, part_of, split_by_patient

PATIENTS = [str(patient) for patient in range(3000) for _ in range(patient % 4 + 1)]


def test_parts_cover_every_image_once_and_share_no_patient() -> None:
    split = split_by_patient(PATIENTS, seed=0)
    indices = [getattr(split, part) for part in PARTS]
    assert sorted(i for part in indices for i in part) == list(range(len(PATIENTS)))
    seen = [{PATIENTS[i] for i in part} for part in indices]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]


def test_shares_are_seventy_ten_twenty() -> None:
    parts = [part_of(str(patient), 5) for patient in range(20_000)]
    for part, share in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.01)


def test_parts_stay_for_ever() -> None:
    """A change here would let patients that were trained on into the test part of a later evaluation."""
    assert [part_of(str(patient), seed=0) for patient in range(1, 7)] == [
        *("test", "train", "train", "train", "validation", "train")
    ]


def test_new_patients_move_nobody() -> None:
    before = split_by_patient(PATIENTS[:2000], seed=1)
    after = split_by_patient(PATIENTS, seed=1)
    for part in PARTS:
        assert list(getattr(before, part)) == [i for i in getattr(after, part) if i < 2000]


def test_digest_depends_on_membership_alone() -> None:
    names = [f"{i}.png" for i in range(len(PATIENTS))]
    digest = split_by_patient(PATIENTS, 0).digest(names)
    assert split_by_patient(PATIENTS[::-1], 0).digest(names[::-1]) == digest
    assert split_by_patient(PATIENTS, 1).digest(names) != digest


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(InputError, match="expected images in every part, found none in"):
        split_by_patient(["7"] * 5, seed=0)


def test_official_test_patients_are_the_test_part_and_the_others_keep_their_proportion() -> None:
    patients = [str(patient) for patient in range(20_000)]
    held_out = [patient % 5 == 0 for patient in range(20_000)]
    split = split_by_patient(patients, seed=3, held_out=held_out)
    assert split.test.tolist() == [i for i, held in enumerate(held_out) if held]
    assert len(split.train) / 16_000 == pytest.approx(7 / 8, abs=0.01)
    assert len(split.validation) == 16_000 - len(split.train)


def test_images_that_are_left_out_move_no_other() -> None:
    split = split_by_patient(PATIENTS, seed=0)
    gone = {int(split.train[0]), int(split.test[-1])}
    fewer = split.without(gone)
    for part in PARTS:
        assert fewer.rows(part).tolist() == [i for i in split.rows(part).tolist() if i not in gone]
    with pytest.raises(InputError, match="found none in validation"):
        split.without(split.validation.tolist())

"""What the batches of an epoch guarantee."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosseai.training.batches import epoch_batches

Cohort = tuple[list[str], npt.NDArray[np.uint8]]


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    """Up to forty images, each of one of up to twelve patients, with up to three diseases."""
    n = draw(st.integers(1, 40))
    patients = draw(st.lists(st.sampled_from("abcdefghijkl"), min_size=n, max_size=n))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return patients, random.integers(0, 2, (n, 3), dtype=np.uint8)


def pairs_in(batch: npt.NDArray[np.int64], patients: list[str], labels: npt.NDArray[np.uint8]) -> int:
    """Most disjoint pairs of one patient's images that share a disease, as a greedy search finds them."""
    left, found = list(map(int, batch)), 0
    while left:
        i = left.pop()
        partner = next((j for j in left if patients[i] == patients[j] and (labels[i] & labels[j]).any()), None)
        if partner is not None:
            left.remove(partner)
            found += 1
    return found


@given(cohorts(), st.integers(2, 12), st.integers(0, 100))
def test_every_image_comes_once_in_batches_of_nearly_one_size(cohort: Cohort, batch_size: int, seed: int) -> None:
    batches = epoch_batches(*cohort, batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(cohort[0])))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@given(cohorts(), st.integers(1, 4), st.integers(2, 12), st.integers(0, 100))
def test_processes_get_equal_shares(cohort: Cohort, multiple: int, batch_size: int, seed: int) -> None:
    n = len(cohort[0])
    if n < multiple or batch_size < multiple:
        return
    batches = epoch_batches(*cohort, batch_size, np.random.default_rng(seed), multiple=multiple)
    assert all(len(batch) % multiple == 0 and len(batch) <= batch_size for batch in batches)
    every = np.concatenate(batches)
    assert len(set(every)) == len(every) == n - n % multiple


@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_their_share_of_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    patients = [str(i // 2) for i in range(60)] + [f"single {i}" for i in range(60)]
    labels = np.zeros((120, 2), np.uint8)
    labels[np.arange(120), random.integers(0, 2, 60).repeat(2)] = 1  # the two of a patient share their disease
    batches = epoch_batches(patients, labels, 16, random)
    counts = [pairs_in(batch, patients, labels) for batch in batches]
    assert sum(counts) == 30, "no pair is divided"
    assert max(counts) - min(counts) <= 1
    assert all(Counter(patients[i] for i in batch).most_common()[-1][0].startswith("single") for batch in batches)


def test_pairs_share_a_disease_unless_the_patient_is_enough() -> None:
    patients = ["a", "a", "b", "b"] * 8
    patients = [f"{name}{i // 4}" for i, name in enumerate(patients)]
    labels = np.tile(np.array([[1, 0], [0, 1]], np.uint8), (16, 1))  # no two of a patient share one

    def together(share_disease: bool) -> int:
        random = np.random.default_rng(0)
        batches = epoch_batches(patients, labels, 4, random, share_disease=share_disease)
        return sum(pairs_in(batch, patients, np.ones_like(labels)) for batch in batches)

    assert together(True) < 8
    assert together(False) == 16


def test_pairs_and_order_differ_between_epochs_and_repeat_with_the_seed() -> None:
    patients, labels = ["a"] * 9 + ["b"] * 9, np.ones((18, 1), np.uint8)

    def epoch(seed: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_batches(patients, labels, 6, np.random.default_rng(seed))]

    assert epoch(0) == epoch(0) != epoch(1)

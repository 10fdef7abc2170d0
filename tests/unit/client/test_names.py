import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crosseai.client.sources.names import NameSet


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_name_set_is_a_set(names: list[str], others: list[str]) -> None:
    known, asked = NameSet(names), [*others, *names]
    places = known.find(asked)
    assert [name in known for name in asked] == [name in set(names) for name in asked] == (places >= 0).tolist()
    assert len({place for name, place in zip(asked, places.tolist(), strict=True) if place >= 0}) == len(set(names))


def test_sixteen_bytes_a_name() -> None:
    assert NameSet(map(str, range(1000)))._digests.nbytes == 16_000
    assert len(NameSet()) == 0
    assert not np.any(NameSet().find(["a"]) >= 0)

import pytest

from crosseai.comparison.methods import REFERENCE, all_methods, methods_named
from crosseai.comparison.published import TABLE_1
from crosseai.contract import InputError


def test_every_method_of_the_paper_s_table_is_there() -> None:
    methods = all_methods()
    assert set(TABLE_1) <= set(methods)
    assert REFERENCE in methods
    assert all(method.name == name for name, method in methods.items())
    assert len({method.title for method in methods.values()}) == len(methods)


def test_only_supervision_and_the_constant_box_see_boxes() -> None:
    assert {name for name, method in all_methods().items() if method.uses_boxes} == {"constant", "li2018"}


def test_one_classifier_for_crosseai_and_scalp() -> None:
    shared = [name for name, method in all_methods().items() if method.training == "contrastive"]
    assert shared == ["scalp", "scalp-contours", "crosseai", "crosseai-tuned"]


def test_by_name_in_the_order_of_the_table() -> None:
    assert [method.name for method in methods_named("crosseai, wang2017")] == ["wang2017", "crosseai"]
    assert [method.name for method in methods_named("all")] == list(all_methods())


@pytest.mark.parametrize(
    ("names", "heatmap", "gradient", "message"),
    [
        ("scalp,resnet", "gradcam++", "guided", "names of constant, .*; found resnet"),
        ("", "gradcam++", "guided", "expected all"),
        ("all", "gradcam", "guide", "found 'gradcam' and 'guide'"),
        ("all", "grad", "guided", r"expected a heat map of gradcam\+\+, "),
    ],
)
def test_refuses_what_it_does_not_know(names: str, heatmap: str, gradient: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods_named(names, heatmap, gradient)  # type: ignore[arg-type]

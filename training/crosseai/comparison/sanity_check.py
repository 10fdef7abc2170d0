"""Whether an explanation depends on what the network has learnt (Adebayo et al., NeurIPS 2018)."""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from crosseai.comparison.explanation_scores import Maps, Values, fused_maps
from crosseai.contract import InputError, ModelSpec
from crosseai.contract.spec import HeatmapMethod
from crosseai.export.sources import GradientSource
from crosseai.training.evaluation import Images, normalise


@dataclass(frozen=True, slots=True)
class SanityCheck:
    """How like the maps of the trained network those of a more and more random one are.

    Parameters
    ----------
    stages
        For each stage the lowest module whose weights are random; in the last all are.
    rank_correlations
        float64 ``[stages, N]``, Spearman's, -1..1.
    similarities
        float64 ``[stages, N]``, structural similarity (Wang et al., TIP 2004), -1..1.
    """

    stages: tuple[str, ...]
    rank_correlations: Values
    similarities: Values

    def passes(self, limit: float = 0.5) -> bool:
        """Whether the maps of the wholly random network are unlike those of the trained one.

        Their mean rank correlation must stay below the limit, which is ours: the paper shows curves. An explanation
        that survives explains the image, not the network.
        """
        return bool(self.rank_correlations[-1].mean() < limit)


def sanity_check(
    model: nn.Module,
    spec: ModelSpec,
    images: Images,
    classes: npt.NDArray[np.int64],
    *,
    heatmap: HeatmapMethod | None = None,
    gradient: GradientSource | None = None,
    t: float | None = None,
    stages: int = 6,
    seed: int = 0,
) -> SanityCheck:
    """Compare explanations before and after cascading randomisation (section 3.1 of the paper).

    From the logits down to the image, the modules are reset to fresh weights, in ``stages`` groups of about as many
    modules: the paper's are the blocks of its networks.

    Parameters
    ----------
    model, spec, images, classes, heatmap, gradient, t
        As for :func:`crosseai.comparison.explanation_scores.score_explanations`; the model stays as it is.
    stages
        Number of comparisons.
    seed
        Of the fresh weights.

    Raises
    ------
    InputError
        If a module with weights cannot reset them, or the arrays do not fit.
    """
    random = copy.deepcopy(model).cpu()
    modules = _modules_from_the_top(random, normalise(torch.from_numpy(images[:1]), spec))
    stages = min(stages, len(modules))
    before = fused_maps(random, spec, images, classes, heatmap=heatmap, gradient=gradient, t=t)
    names: list[str] = []
    correlations, similarities = np.zeros((stages, len(images))), np.zeros((stages, len(images)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for stage, group in enumerate(np.array_split(np.arange(len(modules)), stages)):
            for index in group:
                name, module = modules[index]
                module.reset_parameters()
            names.append(name)
            after = fused_maps(random, spec, images, classes, heatmap=heatmap, gradient=gradient, t=t)
            correlations[stage] = rank_correlation(before, after)
            similarities[stage] = [_structural_similarity(*pair) for pair in zip(before, after, strict=True)]
    return SanityCheck(tuple(names), correlations, similarities)


def rank_correlation(maps: Maps, others: Maps) -> Values:
    """Spearman's rank correlation over the pixels of each pair of maps; ties have their mean rank.

    A constant map is like another constant map (1) and unlike any other (0).

    Parameters
    ----------
    maps, others
        float32 ``[N, S, S]``.

    Returns
    -------
    ndarray
        float64 ``[N]``.
    """
    ranks = (rankdata(m.reshape(len(m), -1), axis=1) for m in (maps, others))
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both_constant, product = norms[0] + norms[1] == 0, norms[0] * norms[1]
    correlations: Values = np.divide((a * b).sum(1), product, out=both_constant.astype(np.float64), where=product > 0)
    return correlations


def _structural_similarity(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Mean SSIM of two maps 0..255, with the paper's Gaussian window and constants."""
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(one, other, **options))  # type: ignore[no-untyped-call]


def _modules_from_the_top(model: nn.Module, image: Tensor) -> list[tuple[str, nn.Module]]:
    """Modules with weights of their own, the last to be called first."""
    called: dict[str, nn.Module] = {}

    def note(name: str, module: nn.Module) -> None:
        called.setdefault(name, module)

    handles = [
        module.register_forward_hook(lambda m, _inputs, _output, name=name: note(name, m))
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        with torch.inference_mode():
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    for name, module in called.items():
        if not hasattr(module, "reset_parameters"):
            raise InputError(
                f"sanity check: expected modules that can reset their parameters, found {name!r} that cannot"
            )
    return list(reversed(called.items()))

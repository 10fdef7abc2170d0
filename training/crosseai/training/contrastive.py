"""A classifier with a projection head beside its own head, for the contrastive loss."""

import torch
from torch import Tensor, nn

from crosseai.contract import InputError

HEADS = ("head", "fc", "classifier")
"""Names of the child that maps the pooled feature to logits: ours, torchvision's ResNets', its DenseNets'."""

EMBEDDING_SIZE = 128


def head_of(classifier: nn.Module) -> tuple[str, int]:
    """Name of the child that maps the pooled feature to logits, and the size of that feature.

    Raises
    ------
    InputError
        If the classifier has no child of a name in ``HEADS``, or that one has no linear layer.
    """
    for name, head in classifier.named_children():
        linear = next((module for module in head.modules() if isinstance(module, nn.Linear)), None)
        if name in HEADS and linear is not None:
            return name, linear.in_features
    raise InputError(f"{type(classifier).__name__}: expected a network with a linear head named one of {HEADS}")


class ContrastiveNetwork(nn.Module):
    """From images to logits and embeddings.

    The embedding is a projection of whatever enters the classifier's head, so that any network with a head will do.
    The paper does not describe the projection; this is the one of SCALP's code.

    Parameters
    ----------
    classifier
        From images to logits, with a child of a name in ``HEADS``. The parameters are its own; :meth:`release` it
        before it is used elsewhere.

    Raises
    ------
    InputError
        If the classifier has no such child, or that one has no linear layer.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        name, features = head_of(classifier)
        self.projection = nn.Sequential(
            nn.Linear(features, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Linear(features, EMBEDDING_SIZE),
            nn.BatchNorm1d(EMBEDDING_SIZE, affine=False),
        )
        self._pooled = torch.empty(0)
        self._tap = classifier.get_submodule(name).register_forward_pre_hook(self._keep)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, ch, S, S]`` to logits ``[N, C]`` and embeddings ``[N, E]``."""
        logits = self.classifier(x)
        return logits, self.projection(self._pooled)

    def release(self) -> None:
        """Leave the classifier as it was."""
        self._tap.remove()

    def _keep(self, _head: nn.Module, inputs: tuple[Tensor]) -> None:
        (self._pooled,) = inputs

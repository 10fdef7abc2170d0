"""The reverse rule of each ATen operator that a CNN classifier is made of.

A rule gets the forward call and the gradient of its output ``[K * N, ...]``, and returns the gradient of each wanted
argument, built from forward operators only. That of ``y = sigmoid(x)``, with ``dy/dx = y (1 - y)``, reads::

    @rule(aten.sigmoid.default)
    def sigmoid(call: Call, gradient: Tensor) -> Gradients:
        return {"self": call.per_class(torch.mul, gradient, call.output * (1 - call.output))}

The names are those of the operator's schema (``torch.ops.aten.sigmoid.default._schema``). A gradient may be of size 1
along a dimension where it is constant, or ``Selected`` where it is zero but for one place. For a model of your own,
register a rule from your own module before the export; ``tests/unit/export/test_rules.py`` compares every rule with
autograd.

Importing this module registers the rules of :mod:`crosseai.export.operators`.
"""

from crosseai.export.operators import activations, arithmetic, shapes, spatial

__all__ = ["activations", "arithmetic", "shapes", "spatial"]

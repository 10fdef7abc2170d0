"""torchvision, importable beside a torch without CUDA.

The wheel on PyPI is built for CUDA: its compiled operators do not load beside a CPU torch, and the import fails at the
first Python registration for one of them. The schemas are enough for models, timm, Captum and pytorch-grad-cam.
Import this module before any of those.
"""

import torch

if torch.version.cuda is None:
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

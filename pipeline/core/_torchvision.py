"""Import torchvision next to a CPU-only torch.

PyPI's torchvision wheel is a CUDA build whose compiled operators do not load beside a lean CPU torch, and its
Python part refuses to import without two of them. Nothing here calls them, so declaring them is enough.
"""

import torch

_declared: list[torch.library.Library] = []


def allow_import() -> None:
    """Declare torchvision's missing operators; call before anything that imports torchvision."""
    if _declared or torch.version.cuda or torch.version.hip:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    _declared.append(library)  # operators vanish with their library

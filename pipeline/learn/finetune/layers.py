"""Which layer of a tower a parameter belongs to, and so how fast it learns."""

import re

from torch import nn

BLOCK = re.compile(r".*?\.\d+(?=\.)")  # up to the first item of a list of layers: visual.transformer.resblocks.3
LAST = re.compile(r"(^|\.)(proj|visual_projection|image_projection)(\.|$)")  # registered first in some libraries


def depths(module: nn.Module) -> dict[str, int]:
    """{parameter: depth}: 0 for what comes before the first block, then 1 a block, and one more for what follows."""
    found, depth, block = {}, 0, None
    for name, _ in module.named_parameters():
        match = BLOCK.match(name)
        if match and match[0] != block:
            depth, block = depth + 1, match[0]
        found[name] = depth if match or not block else None
    return {
        name: depth + 1 if value is None or (LAST.search(name) and not BLOCK.match(name)) else value
        for name, value in found.items()
    }


def groups(module: nn.Module, learning_rate: float, weight_decay: float, decay: float) -> list[dict]:
    """Parameter groups of an optimiser: a layer learns `decay` times as fast as the next one.

    Layer-wise learning-rate decay as in BEiT (Bao et al. 2021, arXiv:2106.08254). Biases, norms and other vectors
    have no weight decay.
    """
    depth = depths(module)
    deepest, found = max(depth.values()), {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1
            rate = learning_rate * decay ** (deepest - depth[name])
            group = found.setdefault(
                (depth[name], decayed),
                {"params": [], "rate": rate, "lr": rate, "weight_decay": weight_decay if decayed else 0.0},
            )
            group["params"].append(parameter)
    return list(found.values())

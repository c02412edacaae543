"""COMPILE=1: an image tower as one program of torch.compile, for batches of one size."""

from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional


def program(
    module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], device: torch.device, batch: int
) -> Callable[[nn.Module, Tensor], Tensor]:
    """`forward`, compiled when the first batch of this size comes; batches of other sizes run as they did.

    For each further size a program would have to be made, which takes longer than the last batches of all shards.
    """
    if device.type == "cpu":
        import torch._inductor.config

        # weights once and for all as oneDNN wants them, and batch norm inside the convolutions before it;
        # torch.compile's own option of this name has no effect: it is read before options are set
        torch._inductor.config.freezing = True
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention) and "forward" not in vars(layer):  # or it has accelerate's hook
            layer.forward = MethodType(_attention, layer)
    compiled = torch.compile(forward, dynamic=False)
    return lambda module, pixels: (compiled if len(pixels) == batch else forward)(module, pixels)


def _attention(self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *more, **options):
    """What the layer computes; compiled, its own way takes a product for each image, and longer than not compiled."""
    is_plain = options.get("attn_mask") is None and not options.get("need_weights", True) and not more
    is_plain = is_plain and options.keys() <= {"attn_mask", "need_weights"} and self.bias_k is None
    is_plain = is_plain and self.batch_first and self._qkv_same_embed_dim and not (self.add_zero_attn or self.training)
    if not (torch.compiler.is_compiling() and is_plain and query is key and key is value):
        return type(self).forward(self, query, key, value, *more, **options)
    b, n, d = query.shape
    qkv_MD = functional.linear(query.flatten(0, 1), self.in_proj_weight, self.in_proj_bias)
    qkv_3BHND = qkv_MD.view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed_BHND = functional.scaled_dot_product_attention(*qkv_3BHND.unbind())
    mixed_MD = mixed_BHND.transpose(1, 2).reshape(b * n, d)
    return functional.linear(mixed_MD, self.out_proj.weight, self.out_proj.bias).view(b, n, d), None

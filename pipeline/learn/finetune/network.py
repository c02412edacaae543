"""An image tower with the classifier on top of it, as one module that is trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ...models._tower import Encoder
from ...models.heads import Captions, Head, linear_probe


class Network(nn.Module):
    """uint8 pixels (B, 3, S, S) -> features (B, D) and class logits (B, C).

    The classifier is linear in L2-normalised features: a head that is trained, or the captions times their logit
    scale, which are not.
    """

    def __init__(self, encoder: Encoder, weight_CD: Tensor, bias_C: Tensor, trained: bool):
        super().__init__()
        self.encoder = encoder
        self.weight = nn.Parameter(weight_CD.clone(), requires_grad=trained)
        self.bias = nn.Parameter(bias_C.clone(), requires_grad=trained)

    @classmethod
    def of_captions(cls, encoder: Encoder, captions: Captions) -> "Network":
        weight = captions.logit_scale * captions.features
        return cls(encoder, weight, torch.zeros(len(weight)), trained=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(pixels)
        with torch.autocast(features.device.type, enabled=False):
            return features, functional.linear(features, self.weight, self.bias)

    def prepare(self, batch_norm: str) -> None:
        """Training mode; statistics of batch normalisation stay as they are unless they are to be trained."""
        self.train()
        if batch_norm == "frozen":
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()

    def head(self) -> Head:
        """The classifier as a head of frozen features."""
        head = linear_probe.Head(*self.weight.shape)
        head.weight.copy_(self.weight.detach().cpu())
        head.bias.copy_(self.bias.detach().cpu())
        return head


def mixed(first: dict[str, Tensor], second: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) x first + alpha x second of two states, WiSE-FT (Wortsman et al. 2021, arXiv:2109.01903).

    Running statistics are averaged like weights; whole numbers are those of the second.
    """
    return {
        name: torch.lerp(first[name], value, alpha) if value.is_floating_point() else value
        for name, value in second.items()
    }

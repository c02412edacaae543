"""The two towers of EVA-CLIP as plain modules, and where their parameters lie in the published files.

Sun et al. 2024, "EVA-CLIP-18B: Scaling CLIP to 18 Billion Parameters", arXiv:2402.04252. Shapes: B batch,
T tokens, W width of a tower, D dimensions of the shared space, H heads.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYOUTS = ("pt", "hub")


@dataclass(frozen=True)
class EvaConfig:
    """Sizes of one architecture; the text tower's defaults are those of both published checkpoints."""

    embed_dim: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    post_norm: bool
    image_size: int = 224
    patch_size: int = 14
    text_width: int = 1280
    text_depth: int = 32
    text_heads: int = 20
    text_mlp_width: int = 5120
    context_length: int = 77
    vocabulary: int = 49408

    def __post_init__(self):
        """ValueError for sizes that do not divide."""
        divided = ("width", "heads"), ("text_width", "text_heads"), ("image_size", "patch_size")
        for whole, part in divided:
            if getattr(self, part) < 1 or getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole} {getattr(self, whole)} is no multiple of {part} {getattr(self, part)}")

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


PUBLISHED = {
    "EVA-CLIP-18B": EvaConfig(embed_dim=1536, width=5120, depth=48, heads=40, mlp_width=25600, post_norm=True),
    "EVA-CLIP-8B": EvaConfig(embed_dim=1280, width=4096, depth=32, heads=32, mlp_width=20480, post_norm=False),
}


class RmsNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in float32 whatever the dtype: fp16 squares overflow at 256."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention; (B, T, W) -> (B, T, W)."""

    def __init__(self, width: int, heads: int, qkv_bias: bool, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        # apart, though the .pt file has them in one: each is a view of either layout, so none needs memory to load
        self.q, self.k, self.v = (nn.Linear(width, width, bias=qkv_bias) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        # is_causal rather than a mask: a mask would be a buffer that no checkpoint fills
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each on a residual branch; the norm opens the branch, or closes it (`post_norm`)."""

    def __init__(self, attention: Attention, mlp: Mlp, norms: tuple[nn.Module, nn.Module], post_norm: bool = False):
        super().__init__()
        self.attn, self.mlp, self.post_norm = attention, mlp, post_norm
        self.norm1, self.norm2 = norms

    def forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            x = x + self.norm1(self.attn(x))
            return x + self.norm2(self.mlp(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageStem(nn.Module):
    """Normalised pixels (B, 3, S, S) -> tokens (B, 1 + patches, W), the class token first."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.cls = nn.Parameter(torch.empty(config.width))
        self.position = nn.Parameter(torch.empty(1 + config.patches, config.width))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(pixels), 1, -1), patches], dim=1) + self.position


class TextStem(nn.Module):
    """Token ids (B, T) -> (B, T, W)."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.token = nn.Embedding(config.vocabulary, config.text_width)
        self.position = nn.Parameter(torch.empty(config.context_length, config.text_width))

    def forward(self, ids: Tensor) -> Tensor:
        return self.token(ids) + self.position[: ids.shape[1]]


class ImageTower(nn.Module):
    """Normalised pixels (B, 3, S, S) -> image features (B, D), not yet of length 1."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        width = config.width
        self.stem = ImageStem(config)
        self.blocks = nn.ModuleList(
            Block(
                Attention(width, config.heads, qkv_bias=False, causal=False),
                Mlp(width, config.mlp_width),
                (RmsNorm(width), RmsNorm(width)),
                config.post_norm,
            )
            for _ in range(config.depth)
        )
        self.norm = RmsNorm(width)
        self.head = nn.Linear(width, config.embed_dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class TextTower(nn.Module):
    """Token ids (B, T) -> text features (B, D), not yet of length 1."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        width = config.text_width
        self.stem = TextStem(config)
        self.blocks = nn.ModuleList(
            Block(
                Attention(width, config.text_heads, qkv_bias=True, causal=True),
                Mlp(width, config.text_mlp_width),
                (nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)),
            )
            for _ in range(config.text_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, config.embed_dim, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.stem(ids)
        for block in self.blocks:
            x = block(x)
        end = ids.argmax(dim=-1).to(x.device)  # the end-of-text token has the highest id
        return self.head(self.norm(x[torch.arange(len(x), device=x.device), end]))


TOWERS = {"image": ImageTower, "text": TextTower}
LOGIT_SCALE = "logit_scale"  # of neither tower; only the .pt file has one

# the start of a name here, in the single .pt file and in the hub's shards; N is a block, [qkv] one of three
NAMES = {
    "image": (
        ("stem.cls", "visual.cls_token", "vision_model.embeddings.class_embedding"),
        ("stem.position", "visual.pos_embed", "vision_model.embeddings.position_embedding.weight"),
        ("stem.patch.", "visual.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
        ("blocks.N.norm1.", "visual.blocks.N.norm1.", "vision_model.encoder.layers.N.layer_norm1."),
        ("blocks.N.attn.[qkv].", "visual.blocks.N.attn.qkv.", "vision_model.encoder.layers.N.self_attn.[qkv]_proj."),
        ("blocks.N.attn.proj.", "visual.blocks.N.attn.proj.", "vision_model.encoder.layers.N.self_attn.out_proj."),
        ("blocks.N.norm2.", "visual.blocks.N.norm2.", "vision_model.encoder.layers.N.layer_norm2."),
        ("blocks.N.mlp.", "visual.blocks.N.mlp.", "vision_model.encoder.layers.N.mlp."),
        ("norm.", "visual.norm.", "vision_model.post_layernorm."),
        ("head.", "visual.head.", "visual_projection."),
    ),
    "text": (
        ("stem.token.", "text.token_embedding.", "text_model.embeddings.token_embedding."),
        ("stem.position", "text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("blocks.N.norm1.", "text.transformer.resblocks.N.ln_1.", "text_model.encoder.layers.N.layer_norm1."),
        (
            "blocks.N.attn.[qkv].",
            "text.transformer.resblocks.N.attn.in_proj_",
            "text_model.encoder.layers.N.self_attn.[qkv]_proj.",
        ),
        (
            "blocks.N.attn.proj.",
            "text.transformer.resblocks.N.attn.out_proj.",
            "text_model.encoder.layers.N.self_attn.out_proj.",
        ),
        ("blocks.N.norm2.", "text.transformer.resblocks.N.ln_2.", "text_model.encoder.layers.N.layer_norm2."),
        ("blocks.N.mlp.fc1.", "text.transformer.resblocks.N.mlp.c_fc.", "text_model.encoder.layers.N.mlp.fc1."),
        ("blocks.N.mlp.fc2.", "text.transformer.resblocks.N.mlp.c_proj.", "text_model.encoder.layers.N.mlp.fc2."),
        ("norm.", "text.ln_final.", "text_model.final_layer_norm."),
        ("head.weight", "text.text_projection", "text_projection.weight"),
    ),
}
TRANSPOSED = {"text.text_projection"}  # stored as (W, D)


def source_of(parameter: str, tower: str, layout: str) -> tuple[str, int | None]:
    """The published tensor that holds one of our parameters, and which third of its rows where it holds three."""
    block, letter = re.search(r"^blocks\.(\d+)\.", parameter), re.search(r"\.attn\.([qkv])\.", parameter)
    generic = re.sub(r"\.attn\.[qkv]\.", ".attn.[qkv].", re.sub(r"^blocks\.\d+\.", "blocks.N.", parameter))
    start, *published = next(row for row in NAMES[tower] if generic.startswith(row[0]))
    name = published[LAYOUTS.index(layout)] + generic.removeprefix(start)
    if block:
        name = name.replace(".N.", f".{block[1]}.")
    if letter and "[qkv]" in name:
        return name.replace("[qkv]", letter[1]), None
    return name, "qkv".index(letter[1]) if letter else None


def published_names(config: EvaConfig, tower: str, layout: str) -> set[str]:
    """All tensors of one tower in a layout."""
    with torch.device("meta"):
        parameters = [name for name, _ in TOWERS[tower](config).named_parameters()]
    return {source_of(name, tower, layout)[0] for name in parameters}


def from_published(tensor: Tensor, source: str, part: int | None, dimensions: int) -> Tensor:
    """One of our parameters out of its published tensor, as a view of it (but for the text projection)."""
    while tensor.ndim > dimensions and tensor.shape[0] == 1:  # class token (1, 1, W), positions (1, T, W)
        tensor = tensor[0]
    if part is not None:
        tensor = tensor.tensor_split(3)[part]
    return tensor.T.contiguous() if source in TRANSPOSED else tensor

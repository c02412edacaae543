"""The dual encoders of the transformers library that family transformers runs: a new one is an entry of KINDS."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Kind:
    """What differs between model types: class, the parts of each tower, how features come out of it."""

    model: str
    image: tuple[str, ...]
    text: tuple[str, ...]
    image_features: Callable[[nn.Module, Tensor], Tensor]
    text_features: Callable[..., Tensor]
    context_length: int | None = None  # where the tokenizer does not say it
    masked: bool = True  # padding is masked; else prompts are padded to the context length and nothing is masked
    canonical: bool = False  # text is lower-cased and loses its punctuation
    prefix: str = ""  # of the keys in the published file, where it holds a larger model
    larger: tuple[str, ...] = ()  # parts of that larger model


def projected(output) -> Tensor:
    """The projected features: a tensor in transformers 4, `pooler_output` of an object in 5."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _image(model: nn.Module, pixels: Tensor) -> Tensor:
    return projected(model.get_image_features(pixel_values=pixels))


def _text(model: nn.Module, **tokens: Tensor) -> Tensor:
    return projected(model.get_text_features(**tokens))


def _patches(model: nn.Module, pixels: Tensor) -> Tensor:
    """NaFlex takes a list of patches and the shape of its grid instead of an image. None is padding: no mask is needed.

    The library reads the shapes, for each image, so they stay where that waits for no GPU.
    """
    side, (batch, channels, height, width) = model.config.vision_config.patch_size, pixels.shape
    rows, columns = height // side, width // side
    grid = pixels.reshape(batch, channels, rows, side, columns, side)
    patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
    shapes = torch.tensor([[rows, columns]] * batch)
    return projected(model.get_image_features(pixel_values=patches, spatial_shapes=shapes))


def _queries(model: nn.Module, pixels: Tensor) -> Tensor:
    """BLIP-2 describes an image by Q vectors, (B, Q, D); the best of them counts for a prompt."""
    seen = model.vision_model(pixel_values=pixels).last_hidden_state
    queries = model.query_tokens.expand(len(pixels), -1, -1)
    found = model.qformer(query_embeds=queries, encoder_hidden_states=seen.to(queries.dtype)).last_hidden_state
    return model.vision_projection(found.to(model.vision_projection.weight.dtype))


def _blip2_text(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    words = model.embeddings(input_ids=input_ids)
    read = model.qformer(query_embeds=words, query_length=0, attention_mask=attention_mask).last_hidden_state
    return model.text_projection(read[:, 0].to(model.text_projection.weight.dtype))


CLIP = Kind("CLIPModel", ("vision_model", "visual_projection"), ("text_model", "text_projection"), _image, _text)
SIGLIP = Kind("SiglipModel", ("vision_model",), ("text_model",), _image, _text, masked=False, canonical=True)
KINDS = {
    "clip": CLIP,
    "siglip": SIGLIP,
    "siglip2": Kind("Siglip2Model", ("vision_model",), ("text_model",), _patches, _text, masked=False, canonical=True),
    "align": Kind("AlignModel", ("vision_model",), ("text_model", "text_projection"), _image, _text, 64),
    # features of all tokens are projected: the first one is the image's, or the sentence's
    "flava": Kind(
        "FlavaModel",
        ("image_model", "image_projection"),
        ("text_model", "text_projection"),
        lambda model, pixels: _image(model, pixels)[:, 0],
        lambda model, **tokens: _text(model, **tokens)[:, 0],
        context_length=77,
        prefix="flava.",
        larger=("image_codebook.", "mim_head.", "mlm_head.", "itm_head.", "mmm_image_head.", "mmm_text_head."),
    ),
    "blip-2": Kind(
        "Blip2ForImageTextRetrieval",
        ("vision_model", "query_tokens", "qformer", "vision_projection"),
        ("embeddings", "qformer", "text_projection"),
        _queries,
        _blip2_text,
        context_length=32,
    ),
}

"""A checkpoint as its own library's documentation loads it. Nothing of our loading is used, but for where files are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from ...core._torchvision import allow_import
from ...models import hub
from ...models.family import Wanted

allow_import()
Pictures = list[Image.Image]


@dataclass(frozen=True)
class Library:
    """What the library does with RGB pictures and prompts; features are not normalised."""

    call: str  # how it was loaded
    transform: Callable[[Image.Image], Tensor] | None  # -> normalised (3, S, S); None: it makes no square picture
    image: Callable[[Pictures], Tensor]  # pictures of the model's size -> (B, D) or (B, Q, D)
    text: Callable[[list[str]], Tensor] | None  # prompts -> (B, D)


def of(wanted: Wanted) -> Library | None:
    """The entry's checkpoint in float32 on the wanted device, both towers; None for a family without such a way."""
    way = WAYS.get(wanted.entry.family)
    with torch.inference_mode():
        return way(wanted) if way else None


def _open_clip(wanted: Wanted) -> Library:
    """create_model_and_transforms and get_tokenizer: by tag, by file, or by folder."""
    import open_clip

    entry, path = wanted.entry, wanted.path
    options = {"force_image_size": entry.size} if "position_embedding" in entry.allow else {}
    if path and path.is_dir():
        name = f"local-dir:{path}"
        call = "create_model_and_transforms('local-dir:...')"
    else:
        name = entry.architecture
        tag = open_clip.get_pretrained_cfg(name, entry.tag) if entry.tag else {}
        trained = {"mean": entry.mean, "std": entry.std, "resize_mode": entry.resize_mode, **tag} if path else {}
        stated = {
            f"image_{key}": trained[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in trained
        }
        options |= {"pretrained": str(path or entry.tag), **stated}
        call = f"create_model_and_transforms({name!r}, pretrained={'a file' if path else repr(entry.tag)})"
    model, _, transform = open_clip.create_model_and_transforms(name, **options, device=wanted.device)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)

    def text(prompts: list[str]) -> Tensor:
        return model.encode_text(tokenizer(prompts).to(wanted.device))

    return Library(
        f"open_clip.{call}", transform, lambda pictures: model.encode_image(_stacked(transform, pictures, wanted)), text
    )


def _timm(wanted: Wanted) -> Library:
    """create_model without its classifier, and create_transform of what it says of its data."""
    import timm

    entry = wanted.entry
    given = {"mean": entry.mean, "std": entry.std, "input_size": (3, entry.size, entry.size)} if not entry.tag else {}
    overlay = {"file": str(hub.weights(wanted)), **given} if wanted.path else {}
    name = f"{entry.architecture}.{entry.tag}" if entry.tag else entry.architecture
    # a file has the classifier's weights too, which the library removes once they are loaded
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **entry.options)
    model.reset_classifier(0)
    model.eval().to(wanted.device)
    said = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**said, is_training=False)
    whole = timm.data.create_transform(**{**said, "crop_pct": 1.0}, is_training=False)
    return Library(
        f"timm.create_model({name!r}, pretrained=True)",
        transform,
        lambda pictures: model(_stacked(whole, pictures, wanted)),
        None,
    )


def _transformers(wanted: Wanted) -> Library:
    """The model's class with from_pretrained, the image processor and the tokenizer beside it."""
    import transformers

    from ...models.transformers import canonical

    entry = wanted.entry
    folder = wanted.path or hub.fetch_folder(wanted.name, entry)
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = config.model_type
    # AutoModel knows BLIP-2 as a language model
    loader = transformers.Blip2ForImageTextRetrieval if kind == "blip-2" else transformers.AutoModel
    model = loader.from_pretrained(folder, dtype=torch.float32).eval().to(wanted.device)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    square = {} if kind == "siglip2" else {"do_resize": False, "do_center_crop": False}
    encode = _Blip2(model) if kind == "blip-2" else model

    def features(output) -> Tensor:
        found = output if isinstance(output, Tensor) else output.pooler_output
        return found[:, 0] if kind == "flava" else found

    def image(pictures: Pictures) -> Tensor:
        inputs = processor(images=pictures, return_tensors="pt", **square).to(wanted.device)
        return features(encode.get_image_features(**inputs))

    def text(prompts: list[str]) -> Tensor:
        length, padding = {"max_length": CONTEXT[kind]} if kind in CONTEXT else {}, True
        if "siglip" in kind:
            # the tokenizer knows no length, and text is read as the authors' evaluator reads it
            prompts, padding = [canonical(prompt) for prompt in prompts], "max_length"
            length = {"max_length": min(config.text_config.max_position_embeddings, tokens.model_max_length)}
        ids = tokens(prompts, padding=padding, truncation=True, return_tensors="pt", **length).to(wanted.device)
        asked = ("input_ids",) if "siglip" in kind else ("input_ids", "attention_mask")
        return features(encode.get_text_features(**{key: ids[key] for key in asked}))

    def transform(picture: Image.Image) -> Tensor:
        return processor(images=picture, return_tensors="pt")["pixel_values"][0]

    called = f"transformers.{loader.__name__}.from_pretrained(...), AutoImageProcessor, AutoTokenizer"
    return Library(called, None if kind == "siglip2" else transform, image, text)


CONTEXT = {"flava": 77, "blip-2": 32}  # tokens, of models whose tokenizer does not say it


class _Blip2:
    """Features of BLIP-2 as its whole forward pass gives them: of each picture and prompt those of the pair."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.size = model.config.vision_config.image_size

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        ids = torch.ones(len(pixel_values), 1, dtype=torch.long, device=pixel_values.device)
        return self._both(pixel_values, ids, torch.ones_like(ids)).image_embeds

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        blank = torch.zeros(len(input_ids), 3, self.size, self.size, device=input_ids.device)
        return self._both(blank, input_ids, attention_mask).text_embeds

    def _both(self, pixels: Tensor, ids: Tensor, mask: Tensor):
        return self.model(pixel_values=pixels, input_ids=ids, attention_mask=mask, use_image_text_matching_head=False)


def _stacked(transform: Callable, pictures: Pictures, wanted: Wanted) -> Tensor:
    return torch.stack([transform(picture) for picture in pictures]).to(wanted.device)


WAYS: dict[str, Callable[[Wanted], Library]] = {"open_clip": _open_clip, "timm": _timm, "transformers": _transformers}

"""Tiny random checkpoints in the published layouts."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WORDS = ["a", "photo", "of", "the", "cat", "dog", "house", "mountain", "red", "green"]
SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
PROMPTS = ["a photo of a cat", "dog", "the red house of the dog"]


def tokenizer_files(folder: Path, limit: int = 16) -> int:
    """A word-level tokenizer as transformers saves one; returns its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=limit,
    ).save_pretrained(folder)
    return len(vocabulary)


def preprocessor_file(folder: Path, size: int, **more) -> None:
    """preprocessor_config.json of a model trained on squashed images."""
    size = {"height": size, "width": size}
    config = {"do_resize": True, "size": size, "do_center_crop": False, "image_mean": MEAN, "image_std": STD, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def local_dir(folder: Path, model_cfg: dict, model: torch.nn.Module, **preprocess) -> Path:
    """open_clip's local-dir layout."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash", **preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": cfg}))
    save_file(
        {k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def pixels(size: int, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def scaled(pixels: torch.Tensor, mean=MEAN, std=STD) -> torch.Tensor:
    """What a model is given for uint8 pixels, computed apart from the code under test."""
    from torchvision.transforms.functional import normalize

    return normalize(pixels / 255.0, mean, std)

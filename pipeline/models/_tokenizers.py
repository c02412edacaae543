"""The tokenizers of the open_clip library, as the families use them that are CLIP by another name."""

import torch
from torch import Tensor

from ..core._torchvision import allow_import
from ..core.errors import Unavailable
from . import _checks
from ._tower import Tokenizer
from .family import Wanted

allow_import()
import open_clip  # noqa: E402  (needs the line above)
from open_clip import SimpleTokenizer  # noqa: E402


def library_tokenizer(wanted: Wanted, text: dict, name: str, context: int) -> Tokenizer:
    """The tokenizer that the library has under a name, or the entry's `tokenizer` (folder or hub id).

    `text` is the text tower's config. UserError when it is not at hand, or of another size than the embedding.
    """
    entry = wanted.entry
    try:
        if entry.tokenizer:
            name = str(wanted.root / entry.tokenizer) if (wanted.root / entry.tokenizer).exists() else entry.tokenizer
            options = text.get("tokenizer_kwargs") or {}
            own = open_clip.tokenizer.HFTokenizer(name, context, **options)
        else:
            own = open_clip.get_tokenizer(name, context_length=context)
    except (OSError, ValueError) as error:
        missing = text.get("hf_tokenizer_name", entry.tokenizer)
        raise Unavailable(
            f"{wanted.where}: its tokenizer {missing} is not on disk and could not be fetched. Bring its folder: "
            f"'tokenizer: path'. {str(error).splitlines()[0]}"
        ) from None
    words = getattr(own, "tokenizer", None)
    rows = text.get("vocab_size", 49408) if "hf_model_name" not in text else None  # a tower of transformers has its own
    if words is None:
        return clip_tokenizer(wanted, own, rows)
    _checks.vocabulary(len(words), rows or len(words), wanted.where, entry.allow)

    def lengths(prompts: list[str]) -> list[int]:
        ids = words([own.clean_fn(prompt) for prompt in prompts], padding=False, truncation=False).input_ids
        return [len(row) for row in ids]

    return Tokenizer(lambda prompts: {"text": own(prompts)}, lengths)


def clip_tokenizer(wanted: Wanted, clip: SimpleTokenizer, rows: int | None, inserted: int | None = None) -> Tokenizer:
    """CLIP's own tokenizer for an embedding of `rows`; ids from `inserted` on have moved up by one."""
    size = clip.vocab_size + (inserted is not None)
    _checks.vocabulary(size, rows or size, wanted.where, wanted.entry.allow)

    def encode(prompts: list[str]) -> dict[str, Tensor]:
        ids = clip(prompts)
        return {"text": ids if inserted is None else torch.where(ids >= inserted, ids + 1, ids)}

    return Tokenizer(encode, lambda prompts: [len(clip.encode(prompt)) + 2 for prompt in prompts])  # start and end

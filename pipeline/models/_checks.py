"""Self-checks of a checkpoint: what would silently cost points is an error that names the fix.

Each has a name; `allow: [name]` in the entry of models.yaml silences it, and then the entry's own value counts.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.errors import Mismatch, NotFound, PromptsTooLong, UserError, did_you_mean
from ..recipes import ModelEntry

TOLERANCE = 1e-4  # of mean and std: published configs round to 4 digits or more
FEWER = 0.9  # an embedding may be padded: its tokenizer may have this share of its rows
KEEP = {
    "context_length": "",
    "size": ", or have its positions interpolated (family open_clip): 'allow: [position_embedding]'",
}
SHOWN = 3  # prompts listed in an error message
LONGEST_SHOWN = 200  # characters of each


def facts(entry: ModelEntry, checkpoint, where: str):
    """The checkpoint's facts, after comparing them with what the entry declares (UserError for the first that differ).

    A fact whose check is allowed is returned as the entry declares it.
    """
    checks = {
        "size": "size",
        "mean": "mean",
        "std": "std",
        "resize_mode": "resize_mode",
        "context_length": "context_length",
        "quick_gelu": "activation",
    }
    own = {}
    for fact, check in checks.items():
        declared, found = getattr(entry, fact), getattr(checkpoint, fact)
        if declared is None or found is None or _same(declared, found):
            continue
        if check not in entry.allow:
            other = KEEP.get(check, f", or keep it with 'allow: [{check}]'")
            raise Mismatch(
                f"{where}: {check}: the entry says {fact}: {_shown(declared)}, the checkpoint was trained "
                f"with {_shown(found)}. Correct the entry{other}"
            )
        own[fact] = declared
    return replace(checkpoint, **own)


def _same(a, b) -> bool:
    if isinstance(a, (tuple, list)):
        return all(abs(x - y) < TOLERANCE for x, y in zip(a, b, strict=True))
    return a == b


def _shown(value) -> str:
    return str(list(value) if isinstance(value, tuple) else value).lower().replace("'", "")


def declared(entry: ModelEntry, facts: tuple[str, ...], where: str) -> None:
    """UserError when the entry of a bare weights file does not declare how the file was trained."""
    missing = [fact for fact in facts if getattr(entry, fact) is None]
    if missing:
        raise UserError(
            f"{where}: a weights file does not say how it was trained; add {', '.join(missing)}, "
            "or the published 'tag' that it is a copy of"
        )


def recipe_resize_mode(ops: tuple[tuple[str, object], ...]) -> str | None:
    """How a preprocess recipe makes images square: squash, shortest, longest, or None when it never resizes."""
    if any(name == "pad_square" for name, _ in ops):
        return "longest"
    for name, argument in ops:
        if name == "resize":
            mode = argument.get("mode") if isinstance(argument, dict) else argument
            return mode or "squash"
    return None


def recipe(member: str, recipe, size: int | None, resize_mode: str | None, fitting, allow: tuple[str, ...]) -> None:
    """Size and resize mode of a preprocess recipe against the model's; None: not known (yet), not compared.

    `fitting(size, mode)` gives the names of recipes that would do, for the message.
    """
    model, _, name = member.partition("@")
    mode = recipe_resize_mode(recipe.ops)
    if size and recipe.size != size and "size" not in allow:
        raise Mismatch(
            f"{member}: preprocess/{name}.yaml makes {recipe.size} pixels, {model} takes {size}. "
            f"Recipes of that size: {', '.join(fitting(size, None)) or 'none, write one'}"
        )
    if resize_mode and mode and mode != resize_mode and "resize_mode" not in allow:
        good = ", ".join(fitting(recipe.size, resize_mode)) or "none, write one"
        raise Mismatch(
            f"{member}: preprocess/{name}.yaml resizes by {mode}, {model} was trained with {resize_mode}. "
            f"Recipes that do: {good}. To use it all the same: 'allow: [resize_mode]' in the model's "
            "entry"
        )


def vocabulary(tokens: int, rows: int, where: str, allow: tuple[str, ...]) -> None:
    """The tokenizer must be the embedding's: never more ids than rows, nor far fewer."""
    if tokens > rows or (tokens < FEWER * rows and "vocabulary" not in allow):
        raise Mismatch(
            f"{where}: vocabulary: the tokenizer has {tokens} tokens, the token embedding {rows} rows; "
            "it is another model's tokenizer. Give its own: 'tokenizer: folder or hub id'"
        )


def prompts_cut(prompts: list[str], lengths: list[int], context: int, where: str, allow: tuple[str, ...]) -> None:
    """UserError naming the prompts that do not fit the context, with the number of tokens that would be lost."""
    lost = [(length - context, prompt) for prompt, length in zip(prompts, lengths, strict=True) if length > context]
    if lost and "prompts_cut" not in allow:
        shown = "; ".join(f"{_beginning(prompt)} loses {tokens}" for tokens, prompt in lost[:SHOWN])
        more = f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise PromptsTooLong(
            f"{where}: {len(lost)} of {len(prompts)} prompts are longer than the context of {context} "
            f"tokens: {shown}{more}. Shorten them, or cut them: 'allow: [prompts_cut]'",
            [prompt for _, prompt in lost],
        )


def _beginning(prompt: str) -> str:
    return repr(prompt) if len(prompt) <= LONGEST_SHOWN else f"{prompt[:LONGEST_SHOWN]!r}..."


def overflow(module: nn.Module, run: Callable[[], Tensor], dtype: str) -> str:
    """Why `run()`, which calls the module, gives values that are not finite: the layer type to blame, and the fix."""
    broken = _first_broken(module, dtype)
    if broken:
        return f"weight {broken} is not finite: the file is damaged, fetch it again"
    found = None if dtype == "fp32" else _first_overflow(module, run)
    if found is None:
        return "the weights are damaged" if dtype == "fp32" else f"run it with DTYPE=fp32 instead of {dtype}"
    name, kind = found
    return (
        f"{kind} ({name}) overflows first in {dtype}. Run that layer type in fp32, 'fp32_layers: [{kind}]' in the "
        "entry (more types may follow), or all of it: DTYPE=fp32"
    )


def _first_broken(module: nn.Module, dtype: str) -> str | None:
    """The first weight with NaN, or in fp32 with infinity (in other dtypes that may be the conversion's doing)."""
    wrong = torch.isnan if dtype != "fp32" else lambda weight: ~weight.isfinite()
    weights = ((name, weight) for name, weight in module.named_parameters() if not weight.is_meta)
    return next((name for name, weight in weights if wrong(weight).any()), None)


def _first_overflow(module: nn.Module, run: Callable[[], Tensor]) -> tuple[str, str] | None:
    """(name, class) of the first layer that makes a value that is not finite from finite inputs."""
    found: list[tuple[str, str]] = []

    def watch(name: str):
        def hook(layer, inputs, output):
            if not found and _all_finite(inputs) and not _all_finite(output):
                found.append((name, type(layer).__name__))

        return hook

    leaves = [(name, layer) for name, layer in module.named_modules() if not any(True for _ in layer.children())]
    # attention modules use their projection without calling it, so they count as a whole
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.MultiheadAttention)] + leaves
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _all_finite(value) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, (tuple, list)):
        return all(_all_finite(part) for part in value)
    return True


def run_in_fp32(module: nn.Module, kinds: tuple[str, ...], where: str) -> None:
    """Make all layers of these classes hold and compute float32; Tower runs the module under autocast.

    To be called before the weights are assigned. Results stay float32, so that nothing overflows on the way.
    """
    known = {type(layer).__name__ for layer in module.modules()}
    for kind in kinds:
        if kind not in known:
            raise NotFound(f"{where}: fp32_layers: this tower has no {kind!r}.{did_you_mean(kind, known)}")
    for layer in module.modules():
        if type(layer).__name__ in kinds:
            layer.float().forward = _in_fp32(layer.forward)


def _in_fp32(forward: Callable) -> Callable:
    def run(*args, **kwargs):
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return forward(*map(_float, args), **{name: _float(value) for name, value in kwargs.items()})

    return run


def _float(value):
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

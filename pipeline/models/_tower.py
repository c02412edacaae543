"""What all families share: the facts of a checkpoint, and one tower that encodes normalised pixels or prompts."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import Mismatch
from ..maths.zeroshot import normalise
from . import _checks, _compiled
from .family import Wanted

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

TRIAL = 8  # images
CONVOLUTIONS = 8  # more than a stem: a tower of convolutions
USED_SHARE = 0.7  # of the free memory of a GPU; the rest is for fragmentation and other allocations

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says of itself. None: it does not say, or it does not apply."""

    size: int  # pixels
    mean: Triple
    std: Triple
    resize_mode: str  # squash, shortest (then centre crop) or longest (then border)
    context_length: int | None = None  # tokens, with the special ones
    quick_gelu: bool | None = None


@dataclass(frozen=True)
class Tokenizer:
    """Prompts -> token ids: `encode(prompts)` gives the model's input, `lengths(prompts)` uncut token counts."""

    encode: Callable[[list[str]], dict[str, Tensor]]
    lengths: Callable[[list[str]], list[int]]


class Tower:
    """One tower of a checkpoint. A family gives the module and how it is called.

    `forward_image(module, (B, 3, S, S) normalised)` or `forward_text(module, **tokens)` return features
    (B, D), or (B, Q, D) where an image has Q query vectors of which the best counts. A `logit_bias` is of models that
    were trained with a sigmoid. `fused`: branches of training were put together, so it is not the file's tensors.
    `device` is where inputs go, if that is not the one asked for.
    """

    def __init__(
        self,
        wanted: Wanted,
        module: nn.Module,
        facts: Facts,
        *,
        forward_image: Callable[[nn.Module, Tensor], Tensor] | None = None,
        forward_text: Callable[..., Tensor] | None = None,
        tokenizer: Tokenizer | None = None,
        logit_scale: float | None = None,
        logit_bias: float | None = None,
        fused: bool = False,
        device: torch.device | None = None,
    ):
        _compute_fp32_exactly()
        self.image_size, self.mean, self.std = facts.size, facts.mean, facts.std
        self.resize_mode, self.context_length = facts.resize_mode, facts.context_length
        self.logit_scale, self.logit_bias = logit_scale, logit_bias
        self.dtype, self.device, self.fused = wanted.dtype, device or wanted.device, fused
        self.module, self.tokenizer, self.where, self.allow = module, tokenizer, wanted.where, wanted.entry.allow
        self._forward_image, self._forward_text = forward_image, forward_text
        self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.mean, self.std))
        # most kernels of convolutions want the channels last, others have to be given them in another order each time;
        # of a model that is spread over devices nothing may be moved
        self._layout = torch.contiguous_format
        if not getattr(module, "hf_device_map", None) and _is_convolutional(module):
            self._layout = torch.channels_last
            module.to(memory_format=self._layout)
        self._mixed = bool(wanted.entry.fp32_layers) and self.dtype != "fp32"

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) on any device -> L2-normalised features (B, D) or (B, Q, D), float32."""
        size = tuple(pixels.shape[-2:])
        if size != (self.image_size, self.image_size) and "size" not in self.allow:
            raise Mismatch(
                f"{self.where}: pixels of {size[0]} x {size[1]}, and the model takes {self.image_size} x "
                f"{self.image_size}; choose a preprocess recipe of that size"
            )
        scaled = pixels.to(self.device, non_blocking=True).float() / 255
        ready = ((scaled - self._mean) / self._std).to(DTYPES[self.dtype], memory_format=self._layout)
        with self._precision():
            return normalise(self._forward_image(self.module, ready))

    def compile(self, batch: int) -> None:
        """Have torch.compile make one program of the image tower; it does when the first batch of that size comes."""
        self._forward_image = _compiled.program(self.module, self._forward_image, self.device, batch)

    @torch.inference_mode()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Finished sentences -> L2-normalised features (B, D), float32; UserError names prompts that would be cut."""
        _checks.prompts_cut(prompts, self.tokenizer.lengths(prompts), self.context_length, self.where, self.allow)
        tokens = {name: ids.to(self.device) for name, ids in self.tokenizer.encode(prompts).items()}
        with self._precision():
            return normalise(self._forward_text(self.module, **tokens))

    def batch_size(self, limit: int) -> int:
        """Images per forward pass, `limit` at most: on a GPU what its free memory holds, by a trial of a few.

        Of several GPUs the one that is filled first counts.
        """
        if self.device.type != "cuda":
            return limit
        trial = torch.zeros(min(TRIAL, limit), 3, self.image_size, self.image_size, dtype=torch.uint8)
        gpus = _gpus(self.module, self.device)
        try:
            self.encode_image(trial)  # what libraries allocate once is not counted
            before = {gpu: torch.cuda.memory_allocated(gpu) for gpu in gpus}
            for gpu in gpus:
                torch.cuda.reset_peak_memory_stats(gpu)
            self.encode_image(trial)
        except torch.OutOfMemoryError:
            return len(trial)  # halved from there
        peaks = {gpu: torch.cuda.max_memory_allocated(gpu) - before[gpu] for gpu in gpus}
        torch.cuda.empty_cache()
        room = min(torch.cuda.mem_get_info(gpu)[0] / max(peaks[gpu] / len(trial), 1) for gpu in gpus)
        return max(1, min(limit, 2 ** int(math.log2(max(USED_SHARE * room, 1)))))

    def why_not_finite(self, inputs: Tensor | list[str]) -> str:
        """Which layer type makes features of these pixels or prompts overflow, and the fix."""
        encode = self.encode_image if isinstance(inputs, Tensor) else self.encode_text
        return _checks.overflow(self.module, lambda: encode(inputs), self.dtype)

    def _precision(self):
        """Layers of both dtypes meet under autocast; without fp32 layers nothing needs it."""
        return torch.autocast(self.device.type, DTYPES[self.dtype]) if self._mixed else contextlib.nullcontext()

    def trainable(self) -> "Encoder":
        """The image tower as a module with gradients; it no longer shares memory with its file.

        UserError for a tower that cannot be trained and written back.
        """
        if self.fused:
            raise Mismatch(
                f"{self.where}: branches of training were put together when it was loaded: it cannot be "
                "trained further; take another model"
            )
        assert self.dtype == "fp32", "weights are trained in float32; lower precision is autocast's"
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)  # as files have them
        return Encoder(self.module, self._forward_image, self._mean, self._std, self.image_size, self.where)


def _compute_fp32_exactly() -> None:
    """cuDNN's convolutions take TF32 unless they are told, and DTYPE=fp32 would give other labels on newer GPUs."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _is_convolutional(module: nn.Module) -> bool:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > CONVOLUTIONS


def _gpus(module: nn.Module, first: torch.device) -> set[torch.device]:
    """All GPUs that a model computes on: each holds activations of the blocks that are there."""
    spread = getattr(module, "hf_device_map", {}).values()
    return {first} | {torch.device("cuda", device) for device in spread if isinstance(device, int)}


class Encoder(nn.Module):
    """The image tower that `Tower.encode_image` calls, with gradients: uint8 (B, 3, S, S) -> normalised (B, D)."""

    def __init__(self, module: nn.Module, forward_image: Callable, mean: Tensor, std: Tensor, size: int, where: str):
        super().__init__()
        self.module, self._forward_image, self.image_size, self.where = module, forward_image, size, where
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_std", std, persistent=False)
        self._require_gradients()

    def forward(self, pixels: Tensor) -> Tensor:
        return normalise(self._forward_image(self.module, (pixels.float() / 255 - self._mean) / self._std))

    def _require_gradients(self) -> None:
        """Of what an image passes through; other parameters of the checkpoint, such as its logit scale, stay."""
        parameters = [p for p in self.module.parameters() if p.is_floating_point()]
        self.module.eval()
        for parameter in parameters:
            parameter.requires_grad_(True)
        features = self(torch.zeros(1, 3, self.image_size, self.image_size, device=self._mean.device))
        if features.ndim != 2:
            raise Mismatch(f"{self.where}: an image has several feature vectors; a tower with one can be fine-tuned")
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass instead of keeping them; UserError where that is not known."""
        # a tower without its other half cannot pass the call on to that
        module = getattr(self.module, "visual", self.module)
        for name in ("set_grad_checkpointing", "gradient_checkpointing_enable"):
            if hasattr(module, name):
                try:
                    getattr(module, name)()
                except (AssertionError, ValueError, NotImplementedError):
                    break
                return
        raise Mismatch(
            f"{self.where}: this tower has no gradient checkpointing; leave it out, and save memory with 'accumulate'"
        )

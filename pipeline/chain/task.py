"""What one run works on: a competition, its images and prompts, and how to compute. Every stage takes a Task."""

import functools
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..core import console
from ..core.digests import FileDigests, digest_of
from ..core.errors import UserError
from ..core.files import atomic_file
from ..images.decoding import Policy
from ..images.listing import ImageFiles, list_images
from ..images.ops import Place
from ..recipes import Competition, Project, Rules
from ..recipes.prompts import PromptSet, load_prompts

DTYPES = ("fp32", "fp16", "bf16")
FILE_NAMES = {"encoding": "utf-8", "errors": "surrogateescape"}  # a path may be no UTF-8
SHOWN = 3  # pairs of prompts in a warning


@dataclass(frozen=True)
class Task:
    """One competition and the settings of one run; 'auto' settings are decided when they are needed."""

    competition_name: str
    project: Project = field(default_factory=Project)
    data: str | None = None
    device_name: str = "auto"
    dtype_name: str = "auto"
    batch_size: int | None = None
    workers: int = 0
    shard_rows: int = 2048

    @cached_property
    def competition(self) -> Competition:
        return self.project.competition(self.competition_name)

    @property
    def where(self) -> str:
        return f"competitions/{self.competition_name}.yaml"

    @cached_property
    def cache(self) -> Path:
        return self.project.root / "cache" / self.competition_name

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return self.project.class_names(self.competition_name)

    @property
    def rules(self) -> Rules:
        """What may be used to label these images."""
        return self.competition.rules

    @property
    def prompts_set(self) -> str:
        return self.competition.prompts or self.competition_name

    @cached_property
    def prior(self) -> tuple[float, ...] | None:
        """Class shares that the competition states, in label order."""
        return self.project.prior(self.competition_name)

    @cached_property
    def prompts(self) -> PromptSet:
        return self.prompts_of(self.prompts_set)

    @functools.cache
    def prompts_of(self, prompts_set: str) -> PromptSet:
        """Any prompt set, for these classes; prompts that most models take for one are said once."""
        found = load_prompts(self.project.prompts_folder(prompts_set), self.class_names)
        for first, second, file in found.near_duplicates[:SHOWN]:
            console.warn_once(f"{file}: {first!r} and {second!r} are one prompt to most models, which counts twice")
        return found

    @cached_property
    def images(self) -> ImageFiles:
        return list_images(str(self.project.root / self.source), "DATA" if self.data else f"{self.where}: images")

    @cached_property
    def policy(self) -> Policy:
        """What is done about images that cannot be decoded as they are."""
        how = self.competition.damaged_images
        return Policy(self.competition.max_pixels, fill=how == "fill", fallback=how != "error")

    @cached_property
    def contents(self) -> list[str]:
        """What each image is, without decoding any."""
        digests = FileDigests(self.cache / "files.json")
        self._remember_source()
        try:
            return self.images.contents(digests)
        finally:
            digests.remember()

    @cached_property
    def images_digest(self) -> str:
        """Digest of the ordered ids and the contents of all images."""
        return digest_of({"ids": self.images.ids, "contents": self.contents})

    @property
    def reports(self) -> Path:
        """Where pages and tables about this competition or data set are written."""
        return self.project.root / "reports" / self.cache.relative_to(self.project.root / "cache")

    @property
    def sources_path(self) -> Path:
        """Where the sources are listed that this cache was ever computed from."""
        return self.cache / "sources.txt"

    @property
    def source(self) -> str:
        """Where the images come from, as the user wrote it."""
        return self.data or self.competition.images

    @property
    def known_sources(self) -> list[str] | None:
        """The sources that this cache was computed from so far; None where the list is damaged."""
        try:
            text = self.sources_path.read_text()
        except FileNotFoundError:
            return []
        except ValueError:
            return None
        return text.splitlines() if text.endswith("\n") else None

    def _remember_source(self) -> None:
        source, known = self.source, self.known_sources
        if known is not None and source not in known:
            with atomic_file(self.sources_path) as temporary:
                temporary.write_text("\n".join([*known, source]) + "\n", **FILE_NAMES)

    @cached_property
    def device(self):
        """torch.device: the one asked for, or the GPU if there is one.

        `cuda` without a number stands for all GPUs: a model too large for the first is spread over them.
        """
        import torch

        if self.device_name == "auto":
            local = os.environ.get("LOCAL_RANK")  # each process of a launcher has a GPU of its own
            gpu = f"cuda:{local}" if local else "cuda"
            return torch.device(gpu if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device_name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
            why = "no such kind of device" if "Expected one of" in why else why
            raise UserError(f"DEVICE={self.device_name}: {why}. Give auto, cpu, cuda or cuda:1") from None
        return device

    @property
    def place(self) -> Place:
        """Where preprocess recipes find their files, and run their networks."""
        return Place(self.project.root, str(self.device))

    @property
    def dtype(self) -> str:
        """'fp16' on a GPU, 'bf16' on a CPU that computes in it, else 'fp32', unless one was asked for."""
        if self.dtype_name != "auto":
            return self.dtype_name
        if self.device.type == "cuda":
            return "fp16"
        return "bf16" if self.device.type == "cpu" and _native_bf16() else "fp32"

    @property
    def batch(self) -> int:
        return self.batch_size or (256 if self.device.type == "cuda" else 64)

    @property
    def threads(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def rank(self) -> int:
        """Number of this process among those a launcher started (torchrun, accelerate launch)."""
        return console.rank()

    @property
    def world(self) -> int:
        return console.world()


def _native_bf16() -> bool:
    """Whether the CPU has instructions for bf16; without them it is emulated, slower than fp32."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))

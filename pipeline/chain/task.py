"""What one run works on, and how it computes: a `Runtime` (project, device, dtype, ...) and a `Task` of it.

A task is a competition here and a labelled data set in `labelled/task.py`: images, class names, prompts, rules. Stages
take tasks and do not ask which kind.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..core import console
from ..core.digests import FileDigests, digest_of, read_memo, write_memo
from ..core.errors import Unavailable
from ..core.files import atomic_file
from ..core.store import Place as Kept
from ..core.store import place
from ..images import completeness
from ..images.decoding import Policy
from ..images.listing import Images, images_of, is_there
from ..images.upscale import Place
from ..recipes import Competition, Project, Rules
from ..recipes.prompts import PromptSet, load_prompts

DTYPES = ("fp32", "fp16", "bf16")
FILE_NAMES = {"encoding": "utf-8", "errors": "surrogateescape"}  # a path may be no UTF-8
SHOWN = 5  # pairs of prompts that are told to be one


@dataclass(frozen=True, eq=False)
class Runtime:
    """A project and the settings of one run; 'auto' settings are decided when they are needed.

    `facts` is what was learnt once and holds for the run; it is shared by all tasks of a run. With `keep_towers` the
    text towers stay in memory, for prompts that are still to come.
    """

    project: Project
    data: str | None = field(default=None, kw_only=True)
    device_name: str = field(default="auto", kw_only=True)
    dtype_name: str = field(default="auto", kw_only=True)
    compiles: bool = field(default=False, kw_only=True)
    batch_size: int | None = field(default=None, kw_only=True)
    workers: int = field(default=0, kw_only=True)
    shard_rows: int = field(default=2048, kw_only=True)
    cache_at: str | None = field(default=None, kw_only=True)
    ray: str | None = field(default=None, kw_only=True)
    keep_towers: bool = field(default=False, kw_only=True)
    facts: dict = field(default_factory=dict, kw_only=True, repr=False)

    def once(self, key: tuple, find: Callable[[], Any]) -> Any:
        """What `find` gives, asked for once in a run."""
        if key not in self.facts:
            self.facts[key] = find()
        return self.facts[key]

    def say_once(self, stage: str, subject: str, message: str) -> None:
        """`say`, once in a run: several parts of a recipe may need one stage."""
        self.once((stage, subject, message), lambda: console.say(stage, subject, message))

    def settings(self) -> dict:
        """The fields that another task of the same run has as well."""
        return {one.name: getattr(self, one.name) for one in fields(Runtime)}

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
            raise Unavailable(f"DEVICE={self.device_name}: {why}. Give auto, cpu, cuda or cuda:1") from None
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
        # on a CPU within 7 % of the best of 8 to 256 for every tower measured (bench/feeding.py), in little memory
        return self.batch_size or (256 if self.device.type == "cuda" else 64)

    @cached_property
    def kept(self) -> Kept:
        """Where what is computed is kept: cache/, or CACHE, which machines can share."""
        return place(self.cache_at or "cache", self.project.root, "CACHE")

    @property
    def threads(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


def _native_bf16() -> bool:
    """Whether the CPU has instructions for bf16; without them it is emulated, slower than fp32."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True, eq=False)
class Task(Runtime):
    """Images, class names and prompts to work on; what a subclass must say is below, the rest follows from it."""

    name: str
    kind: ClassVar[str]  # the folder of its recipe
    labelled: ClassVar[bool] = False  # whether the right label of each image is known: then `truth` has them
    prior: ClassVar[tuple[float, ...] | None] = None  # class shares that are stated, in label order

    if TYPE_CHECKING:  # properties of a subclass
        cache: Path  # where its artefacts lie
        source: str  # where the images come from, as the user wrote it
        images: Images
        class_names: tuple[str, ...]
        prompts_name: str  # its prompt set
        policy: Policy  # what is done about images that cannot be decoded as they are
        rules: Rules  # what may be used to label these images

    @classmethod
    def of(cls, runtime: Runtime, name: str, **more) -> Self:
        """A task with the settings (device, dtype, DATA, ...) of a run."""
        return cls(name=name, **runtime.settings(), **more)

    def under(self, project: Project, same_prompts: bool = False) -> Self:
        """The same task with other ensembles and prompts: what was learnt of its images, models and classes stays."""
        known = {key: value for key, value in self.facts.items() if same_prompts or key[0] != "prompts"}
        other = replace(self, project=project, facts=known)
        vars(other).update({key: value for key, value in vars(self).items() if key not in vars(other)})
        return other

    @property
    def identity(self) -> tuple:
        """What tells its images from those of other tasks of the run."""
        return self.kind, self.name, self.source

    @property
    def where(self) -> str:
        """The file of its recipe, for errors."""
        return self.project.where(self.kind, self.name)

    @property
    def looked_at(self) -> str:
        """Which images are looked at, in words."""
        return self.where

    def every_split(self) -> list[Self]:
        """The same, once for each part that its images come in."""
        return [self]

    @property
    def prompts(self) -> PromptSet:
        return self.prompts_of(self.prompts_name)

    def prompts_of(self, name: str) -> PromptSet:
        """Any prompt set, for these classes; prompts that most models take for one are said once."""
        return self.once(("prompts", name, self.class_names), lambda: self._load_prompts(name))

    def _load_prompts(self, name: str) -> PromptSet:
        found = load_prompts(self.project.prompts_folder(name), self.class_names)
        for first, second, file in found.near_duplicates[:SHOWN]:
            console.warn(f"{file}: {first!r} and {second!r} are one prompt to most models, which counts twice")
        return found

    def chunks(self, rows: int = 0) -> Iterator[tuple[int, int]]:
        """Row ranges (start, stop) that fit into memory whatever the number of images is, or of `rows`."""
        total, rows = len(self.images.ids), rows or self.shard_rows
        return ((start, min(start + rows, total)) for start in range(0, total, rows))

    @property
    def reports(self) -> Path:
        """Where pages and tables about it are written."""
        return self.project.root / "reports" / self.cache.relative_to(self.project.root / "cache")

    def contents(self) -> Sequence[str]:
        """What each image is, without decoding any; the source is remembered, so that `clean-cache` knows it."""
        return self.once(("contents", self.identity), self._contents)

    def _contents(self) -> Sequence[str]:
        self._remember_source()
        with FileDigests(self.cache / "files.json") as digests:
            return self.images.contents(digests)

    def images_digest(self) -> str:
        """Digest of the ordered ids and the contents of all images."""
        return self.once(
            ("images", self.identity), lambda: digest_of({"ids": self.images.ids, "contents": self.contents()})
        )

    @property
    def sources_path(self) -> Path:
        """Where the sources are listed that this cache was ever computed from."""
        return self.cache / "sources.txt"

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
        known = self.known_sources()
        if known is not None and known[-1:] != [self.source]:
            others = [source for source in known if source != self.source]
            with atomic_file(self.sources_path) as temporary:
                temporary.write_text("\n".join([*others, self.source]) + "\n", **FILE_NAMES)


@dataclass(frozen=True, eq=False)
class CompetitionTask(Task):
    """competitions/<name>.yaml; the prompt set defaults to the recipe's."""

    asked_prompts: str | None = field(default=None, kw_only=True)

    kind = "competitions"

    @cached_property
    def recipe(self) -> Competition:
        return self.project.competition(self.name)

    @cached_property
    def cache(self) -> Path:
        return self.project.root / "cache" / self.name

    @cached_property
    def source(self) -> str:
        """DATA, what the recipe says, or, where nothing is there, the DATA of before while the recipe said the same."""
        own, root = self.data or self.recipe.images, self.project.root
        before = {} if self.data or is_there(own, root) else read_memo(self._given_path)
        if before.get("images") != own or not is_there(before["data"], root):
            return own
        last = before["data"]
        self.once(("images", last), lambda: console.warn(f"{own} is not there; the images of DATA={last} are used"))
        return last

    @property
    def _given_path(self) -> Path:
        """Where it is remembered which DATA was given last, and what the recipe's `images` said then."""
        return self.cache / "given.json"

    def _remember_source(self) -> None:
        super()._remember_source()
        if self.data:
            write_memo(self._given_path, {"images": self.recipe.images, "data": self.data})

    @cached_property
    def images(self) -> Images:
        found = images_of(self.source, self.project.root, "DATA" if self.data else f"{self.where}: images")
        by_position = self.recipe.columns[self.recipe.id_column] == "position"
        if odd := completeness.check(found, self.source, self.where, self.recipe.count, by_position):
            self.once(("gaps", self.identity), lambda: console.warn(odd))
        return found

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return self.project.class_names(self.name)

    @property
    def prompts_name(self) -> str:
        return self.asked_prompts or self.recipe.prompts or self.name

    @cached_property
    def prior(self) -> tuple[float, ...] | None:
        return self.project.prior(self.name)

    @cached_property
    def policy(self) -> Policy:
        how = self.recipe.damaged_images
        return Policy(self.recipe.max_pixels, fill=how == "fill", fallback=how != "error")

    @property
    def rules(self) -> Rules:
        return self.recipe.rules

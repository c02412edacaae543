"""What run.py starts on the other machine: `python -m pipeline.remote.there check|encode|collect`.

The folder it works in is a project like any other, with the recipes of the pack and a cache: images are encoded by the
same stages as at home, in shards under locks, so any number of processes share the work and an interrupted one goes on.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ..chain import canary, damage, features, text
from ..chain.stage import Stage, make
from ..chain.task import CompetitionTask, Runtime
from ..core.artefacts import load
from ..core.console import rank, say
from ..core.digests import FileDigests
from ..core.errors import Mismatch, NotFound, Unavailable, UserError
from ..core.memory import keep_freed
from ..images.listing import UNREADABLE, ImageFiles
from ..recipes import Project
from ..recipes.prompts import PromptSet
from . import facts, features_file
from .missing import IMAGES, PACK, ImagesAsked, Listed, Pack, TextsAsked

SHOWN = 5


@dataclass(frozen=True, eq=False)
class PackedTask(CompetitionTask):
    """The competition of a pack: its images are those that the pack lists, in `folder`."""

    listed: Listed = field(kw_only=True)
    folder: Path = field(kw_only=True)

    @cached_property
    def images(self) -> ImageFiles:
        return ImageFiles.of(self.folder, self.listed.ids)

    def contents(self) -> list[str]:
        """As at home; what is read is compared with it."""
        return self.listed.contents


@dataclass(frozen=True, eq=False)
class Asked(Stage):
    """A stage of which only some rows [start, stop] are wanted."""

    rows_asked: list[list[int]] = field(default_factory=list)

    @classmethod
    def of(cls, stage: Stage, rows: list[list[int]]) -> "Asked":
        return cls(**{one.name: getattr(stage, one.name) for one in fields(stage)}, rows_asked=rows)

    def missing(
        self, size: int, first: int = 0, last: int | None = None, checked: bool = True
    ) -> list[tuple[int, int]]:
        """As `Artefact.missing`, of the rows that are asked for."""
        gaps = super().missing(size, first, last, checked)
        cut = [(max(start, a), min(stop, b)) for start, stop in gaps for a, b in self.rows_asked]
        return [(start, stop) for start, stop in cut if start < stop]


@dataclass(frozen=True)
class There:
    """A pack, and the task to work on in the present folder."""

    pack: Pack
    task: PackedTask

    @classmethod
    def of(cls, packed: Path, folder: Path) -> "There":
        pack = Pack.parse(json.loads((packed / PACK).read_text()), str(packed / PACK))
        listed = Listed(**json.loads((packed / IMAGES).read_text()))
        runtime = Runtime(Project(), data=pack.data, shard_rows=pack.shard)
        task = PackedTask.of(runtime, pack.competition, listed=listed, folder=folder)
        return cls(pack, task)

    def in_dtype(self, asked: ImagesAsked | TextsAsked) -> PackedTask:
        return replace(self.task, dtype_name=asked.dtype)

    def stage(self, asked: ImagesAsked) -> Asked:
        task = self.in_dtype(asked)
        return Asked.of(features.stage(task, task.project.member(asked.member)), asked.rows)

    def known(self, asked: TextsAsked) -> dict | None:
        """The features of prompts so far."""
        return text.cached(self.in_dtype(asked), asked.model, ())[0]

    def left(self, asked: ImagesAsked | TextsAsked) -> int:
        """Rows or prompts that are asked for and not encoded yet."""
        if isinstance(asked, ImagesAsked):
            return self.stage(asked).todo
        return len(text.cached(self.in_dtype(asked), asked.model, tuple(asked.prompts))[1])


def check(there: There) -> None:
    """UserError for images or facts that are not those of the pack: what they gave would be refused at home."""
    _check_images(there)
    for asked in there.pack.images:
        here = facts.of_images(there.task, there.task.project.member(asked.member))
        _check_facts(here, asked.facts, asked.model, asked.preprocess)
    for asked in there.pack.texts:
        _check_facts(facts.of_text(there.task, asked.model), asked.facts, asked.model)


def _check_facts(here: facts.Facts, wanted: facts.Facts, model: str, recipe: str = "") -> None:
    if wrong := facts.difference(here, wanted, model, recipe):
        raise Mismatch(f"{wrong}: not what this pack was made for. Make the pack again, or install what it names")


def _check_images(there: There) -> None:
    listed = there.task.listed
    rows = listed.wanted(there.pack)
    with FileDigests(there.task.cache / "files.json") as digests:
        found = ImageFiles.of(there.task.folder, (listed.ids[row] for row in rows)).contents(digests)
    absent = [listed.ids[row] for row, content in zip(rows, found, strict=True) if content == UNREADABLE]
    other = [listed.ids[row] for row, content in zip(rows, found, strict=True) if content != listed.contents[row]]
    for kind, names, what in (
        (NotFound, absent, "are not there"),
        (Mismatch, other, "are other images than those of the pack"),
    ):
        if names:
            some = ", ".join(names[:SHOWN]) + (" ..." if names[SHOWN:] else "")
            raise kind(f"{there.task.folder}: {len(names)} of {len(rows)} images {what}: {some}. Give --images folder")


def encode(there: There, models: list[str]) -> None:
    """What is asked of some models; UserError at the end for what failed, so that one model stops no other."""
    failed = []
    jobs = [*there.pack.images, *([] if rank() else there.pack.texts)]
    for asked in jobs:
        if asked.model not in models:
            continue
        try:
            if isinstance(asked, ImagesAsked):
                make(there.stage(asked))
            else:
                _encode_prompts(there, asked)
        except (UserError, RuntimeError) as error:  # torch has no memory left, or a kernel less
            failed.append(f"{asked.name}: {str(error).splitlines()[0]}")
    if failed:
        raise Unavailable("\n".join(failed))


def _encode_prompts(there: There, asked: TextsAsked) -> None:
    texts = tuple(dict.fromkeys([*asked.prompts, canary.PROMPT]))  # by which the tower at home is compared
    count = len(texts)
    prompts = PromptSet((asked.model,), texts, (0,) * count, (1.0,) * count, ("",) * count, (Path(PACK),) * count)
    text.of_prompts(there.in_dtype(asked), asked.model, prompts)


def collect(there: There, out: Path) -> None:
    """Write all that is encoded so far to one file."""
    tensors = {features_file.LIST: partial(features_file.as_bytes, vars(there.task.listed))}
    images, texts = [], []
    for asked in there.pack.images:
        found = dict(_shards(there.stage(asked)))
        if found:
            images.append(_image_features(there, asked, found))
            tensors |= {shard.name: load for shard, load in found.values()}
    for asked in there.pack.texts:
        known = there.known(asked)
        if known:
            name = f"text/{asked.model}"
            tensors[name] = partial(_array, known["features"])
            texts.append(_text_features(there, asked, known, name))
    pack = there.pack
    manifest = features_file.Manifest(competition=pack.competition, data=pack.data, images=images, texts=texts)
    features_file.write(out, manifest, tensors.items())
    for asked in [*pack.images, *pack.texts]:
        _tell(there, asked)
    say("collect", str(out), f"{out.stat().st_size / 1e6:.1f} MB; take it home: make unpack FILE={out.name}")


def _shards(stage: Asked) -> Iterator[tuple]:
    for start, stop, file in stage.shards():
        name = f"images/{stage.subject}/{start:08d}-{stop:08d}"
        shard = features_file.Shard(start=start, stop=stop, name=name)
        yield name, (shard, partial(_read, stage, start, stop, file))


def _read(stage: Stage, start: int, stop: int, file: Path) -> np.ndarray:
    return stage.read(start, stop, file)["features"].numpy()


def _array(tensor) -> np.ndarray:
    return tensor.float().numpy()


def _image_features(there: There, asked: ImagesAsked, found: dict) -> features_file.ImageFeatures:
    record, problems = damage.stage(there.task, asked.preprocess), []
    for _, _, file in record.shards():
        problems += [dict(zip(("row", "done", "why"), one, strict=True)) for one in load(file)["found"]]
    return features_file.ImageFeatures(
        member=asked.member,
        dtype=there.stage(asked).made_from["dtype"],
        facts=asked.facts,
        shards=[shard for shard, _ in found.values()],
        problems=[features_file.Problem(**one) for one in problems],
    )


def _text_features(there: There, asked: TextsAsked, known: dict, name: str) -> features_file.TextFeatures:
    return features_file.TextFeatures(
        model=asked.model,
        dtype=text.made_from(there.in_dtype(asked), asked.model)["dtype"],
        facts=asked.facts,
        prompts=known["prompts"],
        logit_scale=known["logit_scale"],
        name=name,
    )


def _tell(there: There, asked: ImagesAsked | TextsAsked) -> None:
    left = there.left(asked)
    more = f", {left} are not encoded yet" if left else ""
    say("collect", asked.name, f"{asked.count - left} of {asked.count} encoded{more}")


def main() -> int:
    """The exit status: 1 for what is told in a line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("check", "encode", "collect"))
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keep_freed()
    warnings.filterwarnings("ignore", module="PIL")  # what matters of an image file is in its record
    try:
        there = There.of(args.pack, args.images)
        match args.step:
            case "check":
                check(there)
            case "encode":
                encode(there, args.models)
            case "collect":
                collect(there, args.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:  # told by run.py
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

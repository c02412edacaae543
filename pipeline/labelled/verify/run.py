"""All that is looked at of one checkpoint, in order; a tower or library is in memory only while it is needed."""

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from ... import models
from ...chain import canary
from ...chain.canary import NOISE
from ...chain.task import Runtime
from ...core import artefacts
from ...core.digests import FORMAT, digest_of
from ...core.errors import Unavailable, UserError
from ...images.decoding import decode
from ...images.ops import compile_recipe
from ...images.specimens import pictures
from ...maths import zeroshot
from ...models import _intact
from ...models.family import Wanted
from ...recipes import HEAD
from ..task import DatasetTask
from . import checks, library
from .checks import Check

EACH = 10  # scenes of a class
WORDED = 8  # prompts of a class
TIMED = 8  # images of the batch whose speed is measured
BEFORE = "as verified before"


class Verification:
    """One checkpoint under the settings of a run. `checks` grows as it is looked at."""

    def __init__(self, runtime: Runtime, name: str):
        self.runtime, self.name, self.entry = runtime, name, runtime.project.model(name)
        if self.entry.family == HEAD:
            raise UserError(f"{name} is a trained head; verify the model that it was trained on: {self.entry.base}")
        self.checks: list[Check] = []
        self.call: str | None = None
        self.exact = "fp32"  # or the dtype in use, where the model does not fit into memory in fp32
        self.text = models.has_text(name, self.entry)
        self.canary: dict[str, Tensor] = {}  # what the towers make of one image and one prompt

    @property
    def verdict(self) -> str:
        """'right', 'wrong', or 'unclear' where a comparison failed that should have been made."""
        found = {check.verdict for check in self.checks}
        return "wrong" if "wrong" in found else "unclear" if "failed" in found else "right"

    def run(self) -> None:
        """Every check whose inputs are there; a UserError of one is its verdict."""
        _intact.forget(self.runtime.project.root)
        ours = {}
        with self._told("loading"):
            ours = self._exact()
            self.checks.insert(0, Check("loading", "right", "keys, shapes and declared facts are the checkpoint's"))
        self.checks.insert(0, self._file())
        if not ours:
            return
        with self._told("library"):
            self._against_library(ours)
        with self._told("dtype"):
            self._in_lower_precision(ours)
        with self._told("zero-shot"):
            self._classify(self.runtime.dtype)
        with self._told(BEFORE):
            self._as_before()

    @property
    def other(self) -> str | None:
        """The dtype that is compared with fp32: the one in use; of a family without a library fp16 if that is fp32."""
        if self.runtime.dtype != self.exact:
            return self.runtime.dtype
        return "fp16" if self.exact == "fp32" and self.entry.family not in library.WAYS else None

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.checks.append(Check(name, "wrong", str(error)))
        except Exception as error:  # of the library: what it makes of a checkpoint is what is asked here
            line = (str(error).strip().splitlines() or [""])[0]
            self.checks.append(Check(name, "failed", f"{type(error).__name__}: {line}"))
        gc.collect()

    def _load(self, tower: str, dtype: str) -> models.Model:
        root = self.runtime.project.root
        return models.load(self.name, self.entry, root, tower, self.runtime.device, dtype)

    # ---- our way

    @cached_property
    def drawn(self) -> dict:
        return pictures()

    @cached_property
    def recipe(self):
        return self.runtime.project.preprocess(self.entry.preprocess)

    @cached_property
    def prepare(self) -> Callable:
        where = self.runtime.project.where("preprocess", self.entry.preprocess)
        return compile_recipe(self.recipe, where, self.runtime.place)

    @cached_property
    def seen(self) -> dict[str, Tensor]:
        """The drawn pictures as the recipe makes them, uint8 (3, S, S); of several views the first."""
        return {name: _first(self.prepare(picture)) for name, picture in self.drawn.items()}

    def _exact(self) -> dict[str, Tensor]:
        try:
            return self._ours("fp32")
        except Unavailable:  # memory
            if self.runtime.dtype == "fp32":
                raise
        self.exact = self.runtime.dtype
        self.checks.clear()
        return self._ours(self.exact)

    def _ours(self, dtype: str) -> dict[str, Tensor]:
        """Features of both towers, of the drawn pictures and of the odd prompts that fit."""
        image = self._load("image", dtype)
        found = {"image": image.encode_image(torch.stack(list(self.seen.values()))).cpu()}
        if dtype == self.exact:
            self.image_facts = (image.mean, image.std)
            self.canary["image"] = image.encode_image(canary.pixels(self.recipe.size)).cpu()
            self.checks.append(checks.structure(image.module, "image"))
        del image
        if self.text:
            text = self._load("text", dtype)
            lengths = text.tokenizer.lengths(checks.PROMPTS)
            self.prompts = [p for p, n in zip(checks.PROMPTS, lengths, strict=True) if n <= text.context_length]
            found["text"] = text.encode_text(self.prompts).cpu()
            if dtype == self.exact:
                self.checks.append(checks.structure(text.module, "text"))
                self.canary["text"] = text.encode_text([canary.PROMPT]).cpu()
        return found

    def _file(self) -> Check:
        found = {path.name: kind for path, kind in _intact.compared.items()}
        if not found:
            return Check("file", "not done", "no file was read")
        size = sum(path.stat().st_size for path in _intact.compared if path.is_file()) / 1e9
        kinds = " and ".join(sorted(set(found.values())))
        text = f"{', '.join(sorted(found))}, {size:.3g} GB, compared with {kinds}"
        return Check("file", "told" if "nothing" in kinds else "right", text, {"files": found, "gb": round(size, 3)})

    # ---- the library's way

    def _against_library(self, ours: dict[str, Tensor]) -> None:
        wanted = Wanted(self.name, self.entry, self.runtime.project.root, "image", self.runtime.device)
        there = library.of(wanted)
        if there is None:
            text = f"family {self.entry.family} has none that runs here; the checks below stand in for it"
            self.checks.append(Check("library", "not done", text))
            return
        self.call, noise = there.call, NOISE[self.exact]
        with torch.inference_mode():
            if there.transform:
                self.checks.append(checks.normalisation(there.transform, *self.image_facts))
                meant = bool({op for op, _ in self.recipe.ops} - checks.GEOMETRY) or "resize_mode" in self.entry.allow
                self.checks.append(checks.pixels(there.transform, self.seen, self.drawn, self.recipe, meant))
            squares = [_picture(pixels) for pixels in self.seen.values()]
            self.checks.append(checks.features("image features", ours["image"], there.image(squares), noise))
            if self.text and there.text:
                self.checks.append(checks.features("text features", ours["text"], there.text(self.prompts), noise))

    def _in_lower_precision(self, exact: dict[str, Tensor]) -> None:
        if self.exact != "fp32":
            self.checks.append(Check("dtype", "not done", f"fp32 does not fit into memory; {self.exact} was compared"))
        if self.other:
            self.checks.append(checks.dtype(self._ours(self.other), exact, self.other))

    # ---- what it is good for

    @cached_property
    def demo(self) -> DatasetTask:
        return DatasetTask.of(self.runtime, "demo")

    def scenes(self) -> tuple[Tensor, Tensor]:
        """The first rendered scenes of each class: uint8 (N, 3, S, S), and their labels (N,)."""
        rows = [row for name in self.demo.classes for row in self._rows(name)[:EACH]]
        labels = {name: label for label, name in enumerate(self.demo.classes)}
        pixels = torch.stack([_first(self.prepare(decode(row.file))) for row in rows])
        return pixels, torch.tensor([labels[row.class_name] for row in rows])

    def _rows(self, name: str) -> list:
        return [row for row in self.demo.rows if row.class_name == name]

    def words(self) -> tuple[list[str], Tensor]:
        """The first prompts of each class, and their labels."""
        prompts = self.demo.prompts
        labels = range(len(self.demo.classes))
        of_class = [[at for at, one in enumerate(prompts.prompt_class) if one == label] for label in labels]
        first = [at for columns in of_class for at in columns[:WORDED]]
        return [prompts.prompts[at] for at in first], torch.tensor([prompts.prompt_class[at] for at in first])

    def _classify(self, dtype: str) -> None:
        """Rendered scenes told apart, and the speed and memory of that."""
        pixels, truth = self.scenes()
        image = self._load("image", dtype)
        features = torch.cat([image.encode_image(part).cpu() for part in pixels.split(TIMED)])
        self.checks.append(self._speed(image, pixels[:TIMED], dtype))
        del image
        if not self.text:
            self.checks.append(Check("zero-shot", "not done", "images only: there is no text tower"))
            return
        prompts, owner = self.words()
        encoded = self._load("text", dtype).encode_text(prompts).cpu()
        classes = zeroshot.class_text_features(encoded, owner, torch.ones(len(owner)), len(self.demo.classes))
        self.checks.append(checks.zero_shot(features, classes, truth))

    # ---- what it was

    def _as_before(self) -> None:
        """The features of an entry that was verified as right are kept: other weights under its name are told later.

        Of layers that were exchanged in a file its library knows nothing, nor does a sum that nobody stated.
        """
        entry = self.entry.model_dump(mode="json", exclude_defaults=True)
        made_from = {"stage": "verified", "format": FORMAT, "entry": entry, "dtype": self.exact}
        path = self.runtime.project.root / "reports" / "verify" / f"{self.name}.pt"
        known = artefacts.load(path, digest_of(made_from))
        if known is None:
            if self.verdict == "right":
                artefacts.save(path, made_from, **self.canary)
            self.checks.append(Check(BEFORE, "not done", "this entry was not; what is right now is kept for then"))
            return
        each = [checks.features(tower, self.canary[tower], known[tower], NOISE[self.exact]) for tower in self.canary]
        worst = min(each, key=lambda check: check.figures.get("lowest_cosine", -1))
        text = f"{worst.text} ({worst.name})"
        if worst.verdict == "wrong":
            text += f": other weights than then; if they are meant, remove reports/verify/{path.name}"
        self.checks.append(Check(BEFORE, worst.verdict, text, worst.figures))

    def _speed(self, image: models.Model, pixels: Tensor, dtype: str) -> Check:
        image.encode_image(pixels)
        started = time.perf_counter()
        image.encode_image(pixels).cpu()
        rate = len(pixels) / (time.perf_counter() - started)
        device = self.runtime.device
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 1e9
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        text = f"{rate:.3g} images/s in batches of {len(pixels)} on {device.type} in {dtype}, {peak:.3g} GB at the most"
        return Check("speed", "told", text, {"images_per_second": rate, "peak_gb": peak, "dtype": dtype})


def _first(pixels) -> Tensor:
    """uint8 (3, S, S), the first view of several."""
    made = torch.from_numpy(pixels)
    return made if made.ndim == 3 else made[0]


def _picture(pixels: Tensor):
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

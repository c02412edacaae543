"""models.yaml, an entry each: where a checkpoint is, what is known of it, and how it likes its images."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from ..core.errors import UserError
from ..core.store import is_url
from .reading import read_yaml
from .schema import NAME, Finite, Names, Recipe, Scalar, Temperature, Text, Triple

HEAD = "head"  # the family of what is trained on another member's image features; its columns are classes
ResizeMode = Literal["squash", "shortest", "longest"]


class ModelEntry(Recipe):
    """One entry of models.yaml: where a checkpoint is, what is known of it, and how it likes its images.

    `size` to `logit_scale` are declared facts, compared with what the checkpoint itself says when it is loaded.
    """

    family: Text
    """which code loads it: see [models](models.md#what-was-run); `head` for what was trained here"""
    # where it is
    base: Text | None = None
    """of family head: the member whose image features it takes"""
    architecture: str | None = None
    """which of the library's models"""
    tag: str | None = None
    """which of its published weights"""
    hub: str | None = None
    """repository on the hub"""
    file: str | None = None
    """file in it"""
    revision: str | None = None
    """pinned commit"""
    weights: str | None = None
    """local file or folder (keep `tag` for a copy of a published file), or [URL](scale.md#object-stores) of a file"""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """sum of the file, where `weights` is a URL"""
    tokenizer: str | None = None
    """folder or hub id"""
    download_gb: Annotated[Finite, Field(gt=0)] | None = None
    """size of the download"""
    # what is known of it
    size: Annotated[int, Field(gt=0, le=4096)] | None = None
    """pixels a side; this and the keys down to `logit_scale` are declared facts, compared with the checkpoint's own"""
    mean: Triple | None = None
    """of the channels, as pixels are normalised"""
    std: Triple | None = None
    """of the channels"""
    resize_mode: ResizeMode | None = None
    """how it was trained to see images that are not square"""
    context_length: Annotated[int, Field(gt=2)] | None = None
    """tokens of a prompt"""
    quick_gelu: bool | None = None
    """whether its activation is QuickGELU"""
    logit_scale: Annotated[Finite, Field(gt=0)] | None = None
    """used when the checkpoint has none"""
    temperature: Temperature | None = None
    """for ensembles with `match: temperature`: probabilities are softmax(logits / temperature)"""
    trained_on: Names = ()
    """labelled data it was trained on here, e.g. `[intel-dev:train]`; needs `rules: {labels: true}`"""
    parameters: Annotated[Finite, Field(gt=0)] | None = None
    """millions; for `make models`, like the next three"""
    imagenet: Annotated[Finite, Field(ge=0, le=100)] | None = None
    """zero-shot ImageNet-1k top-1, percent"""
    licence: str = ""
    """of the weights"""
    note: str = ""
    """anything worth knowing"""
    # how it is used
    preprocess: Text
    """default recipe"""
    options: dict[str, Scalar] = {}
    """scalars for timm, e.g. `{pad_type: same}`"""
    fp32_layers: Names = ()
    """layer classes kept in fp32, e.g. `[Linear]`"""
    allow: Names = ()
    """checks to silence by name; `position_embedding` interpolates (open_clip's ViTs), `size` is for timm only"""

    _written_in: str = PrivateAttr("models.yaml")

    @property
    def written_in(self) -> str:
        """The file that it is written in, for errors."""
        return self._written_in

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.weights or self.tag or self.hub):
            raise ValueError("no checkpoint: give 'weights' (a local file or folder), 'tag' or 'hub'")
        return self

    @model_validator(mode="after")
    def _url_has_a_sum(self) -> Self:
        stored = self.weights is not None and is_url(self.weights)
        if stored and (self.sha256 is None or self.family == HEAD):
            raise ValueError(f"weights: {self.weights}: a URL is of one file of a model, and needs 'sha256' beside it")
        if self.sha256 and not stored:
            raise ValueError("sha256: of weights that are a URL; those of a file are read")
        return self

    @model_validator(mode="after")
    def _head_has_a_base(self) -> Self:
        if (self.family == HEAD) != (self.base is not None):
            raise ValueError(
                f"base: the member whose features a trained head takes; family {HEAD} needs it, and others have none"
            )
        return self


def read_entries(path: Path) -> dict[str, ModelEntry]:
    """{name: entry} of a file, nothing where there is none; a trained model's has one entry, called as its folder."""
    content = (read_yaml(path) if path.is_file() else None) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected 'name: entry' lines")
    if path.name == "model.yaml" and list(content) != [path.parent.name]:
        raise UserError(f"{path}: must hold one entry, called {path.parent.name!r} as its folder")
    for name in content:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{path}: {name!r} is no model name: letters, digits, '.', '_' and '-' only")
    entries = {name: ModelEntry.parse(entry, f"{path}: {name}") for name, entry in content.items()}
    for entry in entries.values():
        entry._written_in = f"trained/{path.parent.name}/{path.name}" if path.name == "model.yaml" else path.name
    return entries

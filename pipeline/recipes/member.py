"""A member of an ensemble: a model together with the preprocess recipe that makes its pixels."""

from typing import Self


class Member(str):
    """'model@preprocess', both known. A trained head has a `base`, whose image features it takes.

    It is the text that recipes, folders and tables show; made by `Project.member` alone.
    """

    model: str
    preprocess: str
    base: "Member | None"

    def __new__(cls, model: str, preprocess: str, base: "Member | None" = None) -> Self:
        made = super().__new__(cls, f"{model}@{preprocess}")
        made.model, made.preprocess, made.base = model, preprocess, base
        return made

    def __getnewargs__(self) -> tuple:
        return self.model, self.preprocess, self.base  # for a copy in another process

    @property
    def is_head(self) -> bool:
        return self.base is not None

    @property
    def tower(self) -> "Member":
        """The member whose image features it takes: itself, or the base of a head (with the same pixels)."""
        return self.base or self

"""Verb models: what can be run, how large it is, and whether its weights are here. Nothing here imports torch."""

from ..chain.task import Runtime
from ..core.tables import table
from ..models import hub, stored
from ..recipes import ModelEntry, Project
from ._options import Arguments

HELP = "the entries of models.yaml: size, accuracy, licence, on disk or to download"
HEADER = ("name", "size", "px", "fp16 GB", "IN-1k", "licence", "download")

TO_DOWNLOAD, ON_DISK = "to download", "on disk"


def run(runtime: Runtime, args: Arguments) -> None:
    show(runtime.project)


def show(project: Project) -> None:
    """Print one line per entry of models.yaml and models.local.yaml."""
    print(table(HEADER, [_row(name, entry, project) for name, entry in project.models.items()]))


def _row(name: str, entry: ModelEntry, project: Project) -> tuple[str, ...]:
    return (
        name,
        _count(entry.parameters),
        str(entry.size or ""),
        f"{entry.parameters * 2 / 1000:.2f}" if entry.parameters else "",
        f"{entry.imagenet:.1f}" if entry.imagenet else "",
        entry.licence,
        weights_state(entry, project).removeprefix(f"{TO_DOWNLOAD} "),
    )


def _count(millions: float | None) -> str:
    if millions is None:
        return ""
    return f"{millions / 1000:.2f}B" if millions >= 1000 else f"{millions:.1f}M"


def weights_state(entry: ModelEntry, project: Project) -> str:
    """'on disk', 'bring <path>' or what has to be downloaded."""
    if path := stored.place(entry, project.root):
        away = TO_DOWNLOAD if entry.sha256 else "bring"
        return ON_DISK if path.exists() else f"{away} {entry.weights}"
    if entry.hub and hub.cached(entry):
        return ON_DISK
    size = hub.download_gb(entry)
    about = "" if entry.download_gb else "~"
    return TO_DOWNLOAD + (f" {about}{size:.3g} GB" if size else ", size unknown")

"""Verb models: what can be run, how large it is, and whether its weights are here. Nothing here imports torch."""

from ..chain.task import Runtime
from ..models import hub
from ..recipes import ModelEntry, Project
from ._options import Arguments

HELP = "the entries of models.yaml: size, accuracy, licence, on disk or to download"
HEADER = ("name", "family", "parameters", "px", "fp16 GB", "IN-1k", "licence", "weights")
RIGHT = {"parameters", "px", "fp16 GB", "IN-1k"}


def run(runtime: Runtime, args: Arguments) -> None:
    show(runtime.project)


def show(project: Project) -> None:
    """Print one line per entry of models.yaml and models.local.yaml."""
    rows = [dict(zip(HEADER, _row(name, entry, project), strict=True)) for name, entry in project.models.items()]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) if rows else len(key) for key in HEADER}
    for row in ({key: key for key in HEADER}, *rows):
        cells = (row[k].rjust(widths[k]) if k in RIGHT else row[k].ljust(widths[k]) for k in HEADER)
        print("  ".join(cells).rstrip())


def _row(name: str, entry: ModelEntry, project: Project) -> tuple[str, ...]:
    return (
        name,
        entry.family,
        _count(entry.parameters),
        str(entry.size or ""),
        f"{entry.parameters * 2 / 1000:.2f}" if entry.parameters else "",
        f"{entry.imagenet:.1f}" if entry.imagenet else "",
        entry.licence,
        weights_state(entry, project),
    )


def _count(millions: float | None) -> str:
    if millions is None:
        return ""
    return f"{millions / 1000:.2f} B" if millions >= 1000 else f"{millions:.1f} M"


def weights_state(entry: ModelEntry, project: Project) -> str:
    """'on disk', 'bring <path>' or what has to be downloaded."""
    if entry.weights:
        return "on disk" if (project.root / entry.weights).exists() else f"bring {entry.weights}"
    if entry.hub and hub.cached(entry):
        return "on disk"
    size = f" {entry.download_gb:g} GB" if entry.download_gb else ""
    return f"to download{size or _float32(entry)}"


def _float32(entry: ModelEntry) -> str:
    """Most repositories hold float32."""
    return f" ~{entry.parameters * 4 / 1000:.2f} GB" if entry.parameters else ""

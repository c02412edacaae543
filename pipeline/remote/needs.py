"""What a pack takes elsewhere, said beforehand: weights, GPU memory, and about how long.

The time is no measurement: forward passes of a transformer cost two operations per parameter and token, and the rate is
that of the one long run that is known, EVA-CLIP-18B over 8,100 images in 7.5 minutes on an A100.
"""

from pathlib import Path

from ..chain.task import Task
from ..core.tables import table
from ..images import views
from ..recipes import ModelEntry
from .missing import ImagesAsked, Pack

HEADER = ("model", "images", "prompts", "weights GB", "GPU memory GB", "encoding on an A100")
A100 = 1.67e14  # operations a second
PATCH = 14  # pixels; of larger patches it is less
SHARE = 0.85  # of a GPU's memory for weights, as models are placed


def parameters(entry: ModelEntry, root: Path) -> float | None:
    """Of both towers; of a local file by its size, as if it were float32."""
    if entry.parameters:
        return entry.parameters * 1e6
    size = local_bytes(entry, root)
    return size / 4 if size else None


def local_bytes(entry: ModelEntry, root: Path) -> int:
    """Of weights that lie here and are packed, 0 for those of a hub."""
    if not entry.weights or entry.sha256:
        return 0
    path = root / entry.weights
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def gpu_gb(entry: ModelEntry, root: Path, dtype: str) -> float | None:
    """Memory of one GPU that holds all weights; with less they are spread over several, and over host memory."""
    count = parameters(entry, root)
    return None if count is None else count * (4 if dtype == "fp32" else 2) / 1e9 / SHARE


def tell(task: Task, pack: Pack) -> str:
    """A table with one line per model."""
    rows = []
    for model in pack.models:
        entry = task.project.model(model)
        asked = [one for one in pack.images if one.model == model]
        prompts = sum(len(one.prompts) for one in pack.texts if one.model == model)
        seconds = [_seconds(task, one, entry) for one in asked]
        about = "unknown" if None in seconds else _minutes(sum(filter(None, seconds)))
        rows.append(
            (model, sum(one.count for one in asked), prompts, _weights(task, entry), _gb(pack.gpu_gb[model]), about)
        )
    return table(HEADER, rows)


def _seconds(task: Task, asked: ImagesAsked, entry: ModelEntry) -> float | None:
    count, name = parameters(entry, task.project.root), asked.preprocess
    recipe = task.project.preprocess(name)
    if count is None:
        return None
    tokens = (recipe.size / PATCH) ** 2
    return asked.count * views.count(recipe, f"preprocess/{name}.yaml") * 2 * count * tokens / A100


def _weights(task: Task, entry: ModelEntry) -> str:
    here = local_bytes(entry, task.project.root)
    if here:
        return f"{_gb(here / 1e9)} packed"
    size = entry.download_gb or (entry.parameters * 4 / 1000 if entry.parameters else None)
    return f"{_gb(size)} to download" + (f" ({entry.hub})" if entry.hub else "")


def _gb(size: float | None) -> str:
    if size is None:
        return "unknown"
    return f"{size:.1f}" if size >= 0.1 else "under 0.1"


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "under 1 min" if seconds else ""
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"

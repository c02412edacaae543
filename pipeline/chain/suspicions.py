"""What is odd about predictions: said loudly before they are uploaded, never a reason not to write them."""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from ..core.console import warn
from .task import Task


def histogram(task: Task, labels: Sequence[int]) -> dict[str, int]:
    """{class name: predicted rows}, in label order."""
    counts = Counter(labels)
    return {name: counts[label] for label, name in enumerate(task.class_names)}


def warn_of_odd_histogram(counts: dict[str, int]) -> None:
    """A loud warning when a class is never predicted, or one for more than half of the images."""
    total = sum(counts.values())
    never = [name for name, count in counts.items() if count == 0]
    most = [name for name, count in counts.items() if count > total / 2]
    if never or most:
        said = [f"never predicted: {never}"] if never else []
        said += [f"more than half of the images are {most[0]!r}"] if most else []
        bars = [f"  {name:<24} {count:>8}  {'#' * round(40 * count / total)}" for name, count in counts.items()]
        warn("\n".join([f"CHECK BEFORE UPLOADING: {'; '.join(said)}", *bars]))


def warn_of_ties(class_probs_NC: Tensor) -> None:
    """A warning when the first class wins only because it comes first: its probability is another class's as well."""
    best_N = class_probs_NC.amax(dim=1)
    zero = int((best_N <= 0).sum())
    tied = int(((class_probs_NC == best_N[:, None]).sum(dim=1) > 1).sum()) - zero
    if zero:
        warn(
            f"{zero} of {len(best_N)} images have no probability above the threshold for any class, and get the "
            "first; lower the threshold"
        )
    if tied:
        warn(f"{tied} of {len(best_N)} images have two classes of equal probability, and get the first of them")

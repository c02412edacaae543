"""What is odd about predictions: said loudly before they are uploaded, never a reason not to write them."""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from ..core.console import say, warn
from ..core.files import atomic_file
from ..images.listing import warn_of_deeper
from .ledger import csv_text
from .task import CompetitionTask, Task

NAMED = 3  # files in a line
SHOWN = 20  # classes in a warning
AT_A_TIME = 2**17  # images whose classes are counted together


def say_what_is_left_out(task: CompetitionTask) -> None:
    """A line about what lies beside the images, all of it in left-out.csv; nothing is left out unsaid."""
    files, target = task.images, task.reports / "left-out.csv"
    if files.left_out:
        with atomic_file(target) as temporary:
            text = csv_text(["file"], [[name] for name in files.left_out])
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        first = ", ".join(files.left_out[:NAMED]) + (", ..." if files.left_out[NAMED:] else "")
        say("images", task.name, f"{len(files.left_out)} other files are left out ({first}): {target}")
    else:
        target.unlink(missing_ok=True)
    warn_of_deeper(files, task.source)


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
        said = [f"never predicted: {_some(never)}"] if never else []
        said += [f"more than half of the images are {most[0]!r}"] if most else []
        shown = sorted(counts.items(), key=lambda one: -one[1])[:SHOWN] if len(counts) > SHOWN else counts.items()
        bars = [f"  {name:<24} {count:>8}  {'#' * round(40 * count / total)}" for name, count in shown]
        more = [f"  and {len(counts) - SHOWN} classes more"] if len(counts) > SHOWN else []
        warn("\n".join([f"CHECK BEFORE UPLOADING: {'; '.join(said)}", *bars, *more]))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{list(names[:SHOWN])}{more}"


def ties(class_probs_NC: Tensor) -> tuple[int, int]:
    """How many images have no probability for any class, and how many two classes of the largest."""
    zero = tied = 0
    for part_BC in class_probs_NC.split(AT_A_TIME):  # of millions of images the counts alone would take as much again
        best_B = part_BC.amax(dim=1)
        zero += int((best_B <= 0).sum())
        tied += int(((part_BC == best_B[:, None]).sum(dim=1) > 1).sum())
    return zero, tied - zero


def warn_of_ties(zero: int, tied: int, images: int) -> None:
    """A warning when the first class wins only because it comes first: its probability is another class's as well."""
    if zero:
        warn(
            f"{zero} of {images} images have no probability above the threshold for any class, and get the "
            "first; lower the threshold"
        )
    if tied:
        warn(f"{tied} of {images} images have two classes of equal probability, and get the first of them")


def warn_of_zeros(class_probs_NC: Tensor) -> None:
    """A warning of probabilities that are nothing at all, where they are what is submitted."""
    rows = int((class_probs_NC <= 0).any(dim=1).sum())
    if rows:
        warn(
            f"{rows} of {len(class_probs_NC)} images have a class of probability 0, which log loss punishes most where "
            "it is wrong; 'threshold: 0' in the ensemble keeps what is small"
        )

"""Verb verify: is a checkpoint what it should be? Loaded by its library's documented way and by ours, and compared."""

import json
import platform
import time
from pathlib import Path

from ..chain.task import Runtime
from ..core.console import next_step, tell
from ..core.files import atomic_file
from ..core.tables import table
from ..recipes import HEAD, Project
from ._options import Arguments
from .models import ON_DISK, weights_state

HELP = "whether a checkpoint is right: compared with its own library; without a model those on disk"
USES = ("model", "compute")


def run(runtime: Runtime, args: Arguments) -> int:
    if not args.model:
        listed(runtime.project)
        return 0
    if args.preprocess:
        entries = runtime.project.models
        entries[args.model] = runtime.project.model(args.model).model_copy(update={"preprocess": args.preprocess})
    return verify(runtime, args.model)


def listed(project: Project) -> None:
    """Print the models that are on disk, and what was said of each when it was last verified."""
    there = [name for name, entry in project.models.items() if weights_state(entry, project) == ON_DISK]
    rows = [(name, project.model(name).family, _last(project, name)) for name in there]
    print(table(("on disk", "family", "verified"), [row for row in rows if project.model(row[0]).family != HEAD]))
    next_step("make verify MODEL=name")


def _last(project: Project, name: str) -> str:
    try:
        found = json.loads(_file(project, name).read_text(encoding="utf-8"))
        return f"{found['verdict']}, {found['when'][:10]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not yet"


def _file(project: Project, name: str) -> Path:
    return project.root / "reports" / "verify" / f"{name}.json"


def verify(runtime: Runtime, name: str) -> int:
    """Look at everything, print it, write reports/verify/<name>.json; the exit status: 1 when something is wrong."""
    from ..chain.provenance import surroundings
    from ..labelled.verify.run import Verification

    started = time.perf_counter()
    found = Verification(runtime, name)
    found.run()
    seconds = time.perf_counter() - started
    print(table(("check", "verdict", "what was found"), [(one.name, one.verdict, one.text) for one in found.checks]))
    entry = found.entry.model_dump(mode="json", exclude_defaults=True, exclude={"weights", "tokenizer"})
    content = {
        "model": name,
        "verdict": found.verdict,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "seconds": round(seconds, 1),
        "library": found.call,
        "entry": entry,
        "machine": {"system": platform.platform(), "python": platform.python_version(), "device": str(runtime.device)},
        "dtype": runtime.dtype,
        **surroundings(runtime.project.root),
        "checks": [one.content() for one in found.checks],
    }
    target = _file(runtime.project, name)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for folder, shown in ((runtime.project.root.absolute(), "."), (Path.home(), "~")):  # no business of a bug report
        text = text.replace(f"{folder}/", f"{shown}/")
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    doubts = [one.name for one in found.checks if one.verdict in ("wrong", "failed")]
    tell(f"\n{name} is {found.verdict}" + (f": {', '.join(doubts)}" if doubts else "") + f" ({seconds:.0f} s)")
    where = target.relative_to(runtime.project.root)
    next_step(f"paste {where} into a bug report" if doubts else f"keep {where} beside your results")
    return 1 if doubts else 0

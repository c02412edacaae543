"""Verb prompts-write: a language model describes a competition's classes; what passes the sieve is a new prompt set.

Only names of classes leave the machine. Every answer is kept at once in cache/<competition>/prompts-write.json, so that
the same command goes on where one ended. The set appears whole, read by the strict reader before, or not at all.
"""

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..core.console import next_step, progress, say, tell
from ..core.digests import digest_of, read_memo, write_memo
from ..core.errors import Exists, Mismatch, Unavailable, UserError
from ..core.files import try_lock
from ..recipes import Project, checked_name
from ..recipes.prompts import Shared, as_tokenised, file_stem, files_of_classes, load_prompts
from .endpoint import Endpoint
from .sieve import sift

MOST = 500  # sentences of a class
ROUNDS = 2  # in one run; each asks for every aspect once
OTHERS = 30  # names of other classes that a question has
ASPECTS = (
    "its shape, its parts and what it is made of",
    "its colours, patterns and surfaces",
    "how it looks in different light, weather, seasons and times of day",
    "how it looks from near and far, from several sides, and what surrounds it",
    "what tells it apart from the others at a glance",
)
QUESTION = """\
Write {number} different sentences about what can be seen in photographs of the class "{name}": {aspect}.
The other classes of this task, not to be mentioned: {others}.
Every sentence has the words "{name}" in it, 8 to 20 words in all, and ends in a full stop. Say only what is visible.
One sentence per line, in English, and nothing else: no numbers, no headings, no introduction."""
SHARED = """\
# Written by `make prompts-write`: descriptions of the classes by a language model, sifted but read by nobody yet.
# Templates that are added here count for every class.
templates: []
"""


@dataclass
class Descriptions:
    """Sentences of each class so far, how many answers they are from, and what was dropped."""

    count: int  # sentences wanted of each class
    called: dict[str, tuple[str, ...]]  # {class: its names}
    memo: Path
    asked: str  # digest of what decides the answers
    sentences: dict[str, list[str]] = field(default_factory=dict)
    answers: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)  # all sentences, as most models see them

    def resume(self, secret: str) -> None:
        """Take what an earlier run was answered, sifted again: the file may have been changed."""
        known = read_memo(self.memo)
        if known.get("asked") != self.asked:
            return
        self.dropped.update(known["dropped"])
        for class_name, texts in known["sentences"].items():
            self.answers[class_name] = known["answers"][class_name]
            self._keep(class_name, sift("\n".join(texts), self.called[class_name], self.taken, secret)[0], self.count)

    def _keep(self, class_name: str, texts: list[str], most: int) -> None:
        kept = texts[: min(most, self.missing(class_name))]
        self.sentences.setdefault(class_name, []).extend(kept)
        self.taken.update(map(as_tokenised, kept))

    def missing(self, class_name: str) -> int:
        return self.count - len(self.sentences.get(class_name, ()))

    def add(self, class_name: str, answer: str, most: int, secret: str) -> None:
        """Sift an answer and keep it on disk."""
        found, dropped = sift(answer, self.called[class_name], self.taken, secret)
        self._keep(class_name, found, most)
        self.answers[class_name] += 1
        self.dropped.update(dropped)
        kept = {"sentences": self.sentences, "answers": dict(self.answers), "dropped": dict(self.dropped)}
        write_memo(self.memo, {"asked": self.asked, **kept})


def write(project: Project, name: str, count: int) -> Path:
    """Ask for about `count` sentences of each class and write prompts/<name>-written/; never over an existing one."""
    if count > MOST:
        raise UserError(f"N={count}: at most {MOST} sentences of a class")
    class_names = project.class_names(name)
    target = project.root / "prompts" / checked_name(f"{name}-written", "prompt set")
    _refuse_existing(target)
    endpoint, called = Endpoint.of(), names_of(project, name, class_names)
    cache = project.root / "cache" / name
    asked = digest_of({"model": endpoint.model, "called": called, "question": QUESTION, "aspects": ASPECTS})
    found = Descriptions(count, called, cache / "prompts-write.json", asked)
    with try_lock(cache / "prompts-write.lock") as alone:
        if not alone:
            raise Unavailable(f"{name}: another run writes its prompts now; wait for it, or end it")
        found.resume(endpoint.key)
        with progress(f"prompts-write {name}", "class", len(class_names)) as bar:
            for class_name in class_names:
                _fill(found, class_name, endpoint)
                bar.update()
        _write(found, target, class_names)
        found.memo.unlink(missing_ok=True)
    _say(name, target, found)
    return target


def names_of(project: Project, name: str, class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{class: what it is called}: as in the competition's prompt set, where there is one, or by its own name."""
    folder = project.prompts_folder(project.competition(name).prompts or name)
    if not folder.is_dir():
        return {class_name: (class_name,) for class_name in class_names}
    path = folder / "_shared.yaml"
    any_class = Shared.read(path).classes == "any" if path.is_file() else False
    files = files_of_classes(folder, tuple(class_names), any_class)
    recipes = {class_name: files[class_name][1] for class_name in class_names}
    return {name: (recipe.name or name, *recipe.aliases) for name, recipe in recipes.items()}


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise Exists(f"{target} is already there, nothing is overwritten: rename or remove it")


def _fill(found: Descriptions, class_name: str, endpoint: Endpoint) -> None:
    """Ask until a class has all its sentences; UserError where even half are not to be had."""
    share = math.ceil(found.count / len(ASPECTS))
    for _ in range(ROUNDS * len(ASPECTS)):
        if found.missing(class_name) <= 0:
            return
        found.add(class_name, endpoint.ask(question(found, class_name, share + 1)), share, endpoint.key)
    got = found.count - found.missing(class_name)
    if got < math.ceil(found.count / 2):
        raise Mismatch(
            f"{class_name!r}: {got} of {found.count} sentences after {found.answers[class_name]} answers of "
            f"{endpoint.model}{_told(found.dropped)}. Give it a name that people use ('name:' in the competition's "
            "prompt set), ask another model, or give a smaller N; what was answered is kept"
        )


def question(found: Descriptions, class_name: str, number: int) -> str:
    """The next question about a class: about another aspect than the one before."""
    aspect = ASPECTS[found.answers[class_name] % len(ASPECTS)]
    others = [names[0] for other, names in found.called.items() if other != class_name]
    more = ", ..." if len(others) > OTHERS else ""
    return QUESTION.format(
        number=number, name=found.called[class_name][0], aspect=aspect, others=", ".join(others[:OTHERS]) + more
    )


def _write(found: Descriptions, target: Path, class_names: tuple[str, ...]) -> None:
    """Write the set beside its place, read it as every run does, and only then give it its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed: this one has the lock
    folder.mkdir()
    try:
        (folder / "_shared.yaml").write_text(SHARED, encoding="utf-8")
        stems: Counter = Counter()
        for class_name in class_names:
            stem = file_stem(class_name)
            stems[stem] += 1
            file = f"{stem}{f'__{stems[stem]}' if stems[stem] > 1 else ''}.yaml"
            content = {"class": class_name, "prompts": found.sentences[class_name]}
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=math.inf)
            (folder / file).write_text(text, encoding="utf-8")
        load_prompts(folder, class_names)
        _refuse_existing(target)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(dropped: Counter) -> str:
    return f" (dropped: {', '.join(f'{number} {why}' for why, number in dropped.most_common())})" if dropped else ""


def _say(name: str, target: Path, found: Descriptions) -> None:
    """What there is now, and what to do with it."""
    number = sum(map(len, found.sentences.values()))
    counts = f"{number} sentences of {len(found.sentences)} classes from {found.answers.total()} answers"
    say("prompts-write", name, f"{counts}{_told(found.dropped)}: {target}")
    tell(f"  to use it: 'prompts: {target.name}' in competitions/{name}.yaml, 'pooling: embedding' in the ensemble")
    next_step(
        f"read {target} and delete what is wrong, then "
        f"make prompts-rank COMPETITION={name} PROMPTS={target.name} MODEL=... UNLABELLED=1"
    )

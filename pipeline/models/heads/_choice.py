"""Which of the states that training passes through is the result: decided by a validation set, told once."""

import copy
from collections.abc import Callable

from . import Head

Setting = dict[str, float]


class Choice:
    """Measures every state a method shows and keeps the best by each target.

    `measure(head)` gives validation measures, among them the targets and "loss"; higher is better for a target, and
    of two equal ones the lower loss wins. `tell(setting, measures)` is called for each.
    """

    settings: list[Setting] | None = None  # all that the method makes

    def __init__(self, measure: Callable[[Head], dict[str, float]], targets: tuple[str, ...], tell=None):
        self.measure, self.targets, self.tell = measure, targets, tell or (lambda setting, measures: None)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, tuple[tuple[float, float], Setting, Head, dict[str, float]]] = {}
        self.waited = 0

    def see(self, head: Head, setting: Setting, **facts: float) -> tuple[float, float]:
        """Measure a state made with `setting`; the score by the first target is returned. `facts` go to the history."""
        training = head.training
        measures = self.measure(head)
        head.train(training)
        self.history.append({**setting, **facts, **measures})
        self.tell(setting, measures)
        self.waited += 1
        scores = {target: (measures[target], -measures["loss"]) for target in self.targets}
        for target, score in scores.items():
            known = self.best.get(target)
            if known is None or score > known[0]:
                self.best[target] = (score, setting, copy.deepcopy(head), measures)
            if known is None or score[0] > known[0][0]:  # a lower loss alone is no reason to go on
                self.waited = 0
        return scores[self.targets[0]]

    def finished(self, patience: int) -> bool:
        """Whether the last `patience` states were no improvement by any target."""
        return self.waited >= patience

    def head(self, target: str | None = None) -> Head:
        return self.best[target or self.targets[0]][2].eval()

    def setting(self, target: str | None = None) -> Setting:
        return self.best[target or self.targets[0]][1]

    def measures(self, target: str | None = None) -> dict[str, float]:
        return self.best[target or self.targets[0]][3]


class Replay:
    """Keeps the states of settings that were chosen before: training again, on more images, measures nothing."""

    def __init__(self, settings: list[Setting], tell=None):
        self.settings, self.tell = settings, tell or (lambda setting, measures: None)
        self.heads: list[Head | None] = [None] * len(settings)

    def see(self, head: Head, setting: Setting, **facts: float) -> tuple[float, float]:
        self.tell(setting, {})
        for number, wanted in enumerate(self.settings):
            if wanted == setting:
                self.heads[number] = copy.deepcopy(head).eval()
        return 0.0, 0.0

    def finished(self, patience: int) -> bool:
        """Whether all that is wanted was seen."""
        return all(head is not None for head in self.heads)

"""Weights of prompts from the logits of unlabelled images alone: ZPE and CARPRT, and nothing else.

Shape suffixes as in zeroshot.py, and T templates that every class has. Both papers give every class the same prompts.
Here a class may have sentences of its own, so "the classifier under a prompt" is: for a template that every class has,
the template's prompt of each class (the mean logit of several names of a class), as in the papers; for any other
prompt, that prompt for its class and the mean logit of all their prompts for the other classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Chunks = Callable[[], Iterable[Tensor]]  # each call yields the logits (n, P) of all images anew, some at a time


@dataclass(frozen=True)
class Columns:
    """What P prompt columns are: their class, and the number of their template where every class has it (else -1)."""

    prompt_class_P: Tensor
    template_P: Tensor
    classes: int

    @classmethod
    def of(cls, prompt_class_P: Tensor, templates: Sequence[str], classes: int) -> "Columns":
        """From the template's text of each column, '' for none."""
        labels_of: dict[str, set[int]] = {}
        for template, label in zip(templates, prompt_class_P.tolist(), strict=True):
            labels_of.setdefault(template, set()).add(label)
        shared = [text for text, labels in labels_of.items() if text and len(labels) == classes]
        number = {text: n for n, text in enumerate(shared)}
        return cls(prompt_class_P, torch.tensor([number.get(text, -1) for text in templates]), classes)

    @property
    def shared(self) -> Tensor:
        return self.template_P >= 0

    def template_logits(self, logits_NP: Tensor) -> Tensor:
        """The classifier under each shared template; (N, P) -> (N, T, C)."""
        templates = int(self.template_P.max()) + 1
        cell_S = (self.template_P * self.classes + self.prompt_class_P)[self.shared]
        return _means(logits_NP[:, self.shared], cell_S, templates * self.classes).unflatten(1, (-1, self.classes))

    def predicted(self, logits_NP: Tensor) -> Tensor:
        """Whether the classifier under each prompt predicts that prompt's class; (N, P) -> (N, P) bool."""
        means_NC = _means(logits_NP, self.prompt_class_P, self.classes)
        best, second = means_NC.topk(2, dim=1).values.T[:, :, None]
        rival_NC = torch.where(means_NC == best, second, best)  # the best of the other classes
        predicted_NP = logits_NP > rival_NC[:, self.prompt_class_P]
        if self.shared.any():
            label_NT = self.template_logits(logits_NP).argmax(dim=2)
            predicted_NP[:, self.shared] = label_NT[:, self.template_P[self.shared]] == self.prompt_class_P[self.shared]
        return predicted_NP


def zpe(chunks: Chunks, columns: Columns) -> Tensor:
    """Weights (P,) by Zero-shot Prompt Ensembling (Allingham et al. 2023, arXiv:2302.06235); mean 1 in each class.

    A template's score is the mean over images of the largest class logit, after each logit's mean over the images was
    taken out; the weights are the softmax of the scores. (The paper also takes out the mean over images like those of
    pretraining, which nobody has at hand here.) The score is the mean over classes, by predicted images, of what is
    left of it if only images predicted as one class count, so that is the score of a prompt that other classes do not
    have; it is moved by what the two differ for the templates of its class. Reads the logits twice; O(N P).
    """
    mean_P, images = _mean_logits(chunks)
    top_T, sums_P, counts_P = torch.zeros(()), torch.zeros_like(mean_P), torch.zeros_like(mean_P)
    for logits_NP in chunks():
        centred_NP = logits_NP.double() - mean_P
        if columns.shared.any():
            top_T = top_T + columns.template_logits(centred_NP).amax(dim=2).sum(dim=0) / images
        predicted_NP = columns.predicted(centred_NP)
        sums_P += (centred_NP * predicted_NP).sum(dim=0)
        counts_P += predicted_NP.sum(dim=0)
    score_P = _filled(sums_P / counts_P, columns)
    if columns.shared.any():
        _like_templates(score_P, top_T, columns)
    return _softmax_in_class(score_P, columns)


def carprt(chunks: Chunks, columns: Columns) -> Tensor:
    """Weights (P,) by class-aware prompt reweighting (CARPRT, ICLR 2026, openreview AScQDQqVXY); mean 1 in each class.

    The score of a prompt for its class is the mean logit of the images that the classifier under this prompt predicts
    as the class; the weights are the softmax over the prompts of the class. A prompt that predicts its class of no
    image has the lowest score of its class. Reads the logits once; O(N P).
    """
    sums_P = counts_P = torch.zeros(len(columns.prompt_class_P), dtype=torch.float64)
    for logits_NP in chunks():
        predicted_NP = columns.predicted(logits_NP.double())
        sums_P = sums_P + (logits_NP * predicted_NP).sum(dim=0, dtype=torch.float64)
        counts_P = counts_P + predicted_NP.sum(dim=0)
    return _softmax_in_class(_filled(sums_P / counts_P, columns), columns)


def weights(
    method: Callable[[Chunks, Columns], Tensor],
    chunks: Chunks,
    prompt_class_P: Tensor,
    templates: Sequence[str],
    given_P: Tensor,
    classes: int,
) -> Tensor:
    """Weights (P,) by `zpe`, `carprt` or the like; prompts that are given the weight 0 keep it and count nowhere."""
    kept = given_P > 0
    names = [template for template, keep in zip(templates, kept.tolist(), strict=True) if keep]
    columns = Columns.of(prompt_class_P[kept], names, classes)
    found_P = torch.zeros(len(given_P))
    found_P[kept] = method(lambda: (logits[:, kept] for logits in chunks()), columns).float()
    return found_P


def _means(values_NP: Tensor, group_P: Tensor, groups: int) -> Tensor:
    """Mean of the columns of each group; (N, P) -> (N, groups)."""
    sums = values_NP.new_zeros(len(values_NP), groups).index_add_(1, group_P, values_NP)
    return sums / torch.bincount(group_P, minlength=groups)


def _mean_logits(chunks: Chunks) -> tuple[Tensor, int]:
    """Mean over images of each column (P,) float64, and how many images there are."""
    total_P, images = torch.zeros(()), 0
    for logits_NP in chunks():
        total_P, images = total_P + logits_NP.sum(dim=0, dtype=torch.float64), images + len(logits_NP)
    return total_P / images, images


def _filled(score_P: Tensor, columns: Columns) -> Tensor:
    """Scores of prompts that predicted nothing (nan) become the lowest of their class, or 0 where all are nan."""
    lowest_C = torch.full((columns.classes,), torch.inf, dtype=score_P.dtype)
    known = ~score_P.isnan()
    lowest_C.scatter_reduce_(0, columns.prompt_class_P[known], score_P[known], "amin")
    lowest_C[lowest_C.isinf()] = 0
    return torch.where(known, score_P, lowest_C[columns.prompt_class_P])


def _like_templates(score_P: Tensor, top_T: Tensor, columns: Columns) -> None:
    """Give the columns of shared templates their template's score, and move the others of a class by the difference."""
    shared, label_S = columns.shared, columns.prompt_class_P[columns.shared]
    own_S, whole_S = score_P[shared], top_T[columns.template_P[shared]]
    moved_C = _means((whole_S - own_S)[None], label_S, columns.classes)[0]
    score_P += moved_C[columns.prompt_class_P]
    score_P[shared] = whole_S


def _softmax_in_class(score_P: Tensor, columns: Columns) -> Tensor:
    """Softmax over the prompts of each class, times their number."""
    weight_P = torch.empty_like(score_P)
    for label in range(columns.classes):
        own = columns.prompt_class_P == label
        weight_P[own] = score_P[own].softmax(dim=0) * own.sum()
    return weight_P

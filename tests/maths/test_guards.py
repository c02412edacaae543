"""Guards: a step that helps is kept, one that collapses is not, whatever the order of images; nothing needs a label."""

import json
from dataclasses import replace

import pytest
import torch

from pipeline.chain import classes as chain_classes
from pipeline.chain.main_job import submit
from pipeline.maths import refine
from pipeline.maths.refine import STEPS, Evidence, NotConverged, guards
from pipeline.maths.zeroshot import normalise

from ..conftest import fresh, pipeline, write_yaml


def scene(shares=(1, 1, 1, 1), n=400, seed=0, tilt=0.35):
    """Clusters of images, and texts that are off in one direction: zero-shot labels are wrong at the borders."""
    draw = torch.Generator().manual_seed(seed)
    centres = normalise(torch.randn(len(shares), 24, generator=draw))
    counts = [round(n * share / sum(shares)) for share in shares]
    label_N = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    images = normalise(centres[label_N] + 0.16 * torch.randn(len(label_N), 24, generator=draw))
    texts = normalise(
        centres + tilt * torch.randn(24, generator=draw) + 0.4 * torch.randn(centres.shape, generator=draw)
    )
    probs = (6 * images @ texts.T).softmax(dim=1)
    return probs, Evidence(images, texts, (probs,), ("a", "b", "c", "d")), label_N


def run(name, probs, given, **arguments):
    return guards.guarded(name, lambda: STEPS[name](probs, given, **arguments), probs, given)


def accuracy(probs, label_N):
    return float((probs.argmax(dim=1) == label_N).float().mean())


def test_a_step_that_finds_the_clusters_is_kept():
    probs, given, label_N = scene()
    found, outcome = run("discriminant", probs, given)
    assert outcome.refused == "" and accuracy(found, label_N) > accuracy(probs, label_N) + 0.05
    assert outcome.changed == int((found.argmax(dim=1) != probs.argmax(dim=1)).sum()) > 0
    assert outcome.before == tuple(refine.histogram(probs).tolist())
    assert outcome.after == tuple(refine.histogram(found).tolist()) and sum(outcome.after) == len(probs)


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("shares", [(1, 1, 0, 0), (10, 4, 2, 1), (1, 1, 1, 1)])
def test_no_step_does_harm(name, shares):
    probs, given, label_N = scene(shares)
    found, _ = run(name, probs, given)
    assert accuracy(found, label_N) >= accuracy(probs, label_N) - 0.003


def test_an_even_prior_on_an_uneven_mix_splits_clusters_and_is_refused():
    probs, given, _ = scene((10, 4, 2, 1))
    found, outcome = run("prior", probs, given)
    assert found is probs and outcome.changed > 0 and outcome.refused


def test_changes_that_similar_images_speak_against_are_refused():
    probs, given, label_N = scene()
    right = torch.nn.functional.one_hot(label_N, 4).float()
    wrong = right.clone()
    wrong[::10] = right[::10].roll(1, dims=1)
    found, outcome = guards.guarded("discriminant", lambda: wrong, right, given)
    assert found is right and "similar images do not side with the new labels" in outcome.refused
    found, outcome = guards.guarded("any", lambda: right, wrong, given)
    assert torch.equal(found, right) and not outcome.refused and outcome.withheld == 0


def test_wrong_changes_are_withheld_and_right_ones_are_kept():
    """A step that is right about one pair of classes, and takes some images of another class for a third one."""
    _, given, label_N = scene()
    right = torch.nn.functional.one_hot(label_N, 4).float()
    before, step = right.clone(), right.clone()
    before[label_N == 1] = right[label_N == 2][:1]
    before[(label_N == 1).nonzero()[:50]] = right[label_N == 1][:1]  # a half of a cluster is mislabelled
    step[:3] = right[label_N == 3][:1]
    found, outcome = guards.guarded("any", lambda: step, before, replace(given, member_probs=(before,)))
    assert not outcome.refused and outcome.withheld == 3
    assert torch.equal(found, right) and outcome.changed == int((label_N == 1).sum()) - 50
    assert outcome.after == tuple(refine.histogram(right).tolist())


def test_changes_between_two_classes_are_judged_together():
    """An image alone among others is moved with its kind; few changes of a kind lean on the mean of all, if lower."""
    old, new = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 1, 1, 0, 0])
    support = torch.tensor([1.0, 0.9, -0.4, -1.0, 0.0])
    expected = [(1.5 + 10 * 0.1) / 13] * 3 + [-1.0, 0.0]
    assert guards.together(support, old, new, 10).tolist() == pytest.approx(expected)


def test_few_changes_that_most_others_speak_against_are_withheld():
    """Four images that moved among their like are kept alone, and beside many that did not only by a witness's word."""
    _, given, label_N = scene()
    right = torch.nn.functional.one_hot(label_N, 4).float()
    before, step = right.clone(), right.clone()
    before[(label_N == 1).nonzero()[:4]] = right[label_N == 2][:1]
    found, outcome = guards.guarded("discriminant", lambda: step, before, given)
    assert torch.equal(found, right) and not outcome.refused
    step[(label_N == 3).nonzero()[:15]] = right[label_N == 0][:1]
    found, outcome = guards.guarded("discriminant", lambda: step, before, given)
    assert found is before and outcome.refused
    seen = replace(given, witness_ND=given.image_features_ND)
    found, outcome = guards.guarded("discriminant", lambda: step, before, seen)
    assert torch.equal(found, right) and (outcome.changed, outcome.withheld) == (4, 15)


@pytest.mark.parametrize(
    ("speaks", "finds_mix", "other", "witnessed"),
    [(0.5, True, True, True), (0.4, False, True, True), (0.25, False, False, False)],
)
def test_most_is_asked_of_the_members_own_neighbours_where_nothing_else_is(
    monkeypatch, speaks, finds_mix, other, witnessed
):
    """They err with the labels, and a step that finds the mix has to pass no other guard; a witness's err less."""
    _, given, label_N = scene()
    right = torch.nn.functional.one_hot(label_N, 6).float()  # two classes are absent
    before = right.clone()
    before[(label_N == 1).nonzero()[:8]] = right[label_N == 2][:1]
    monkeypatch.setattr(guards, "support", lambda old, new, _: (torch.full((8,), speaks), (old != new).any(dim=1)))
    seen = replace(given, witness_ND=given.image_features_ND)
    for name, evidence, kept in (
        ("discriminant", given, finds_mix),
        ("any", given, other),
        ("discriminant", seen, witnessed),
    ):
        _, outcome = guards.guarded(name, lambda: right, before, evidence)
        assert outcome.changed == 8 and bool(outcome.refused) is not kept


@pytest.mark.parametrize(("absent", "sides_with"), [(0, 0.3), (1, 0.375), (2, 0.45)])
def test_less_is_asked_where_labels_tell_of_all_classes_before_and_after(absent, sides_with):
    _, _, label_N = scene()
    even = torch.nn.functional.one_hot(label_N, 4 + absent).float()  # 4 of 4, 5 or 6 classes in effect
    assert guards.asked(even, even, True, False) == (pytest.approx(sides_with), 10)
    assert guards.asked(even, even, False, False) == (0.3, 10) and guards.asked(even, even, True, True) == (0.3, 3)
    few = torch.nn.functional.one_hot(label_N % 2, 4 + absent).float()
    assert guards.asked(few, even, True, False) == (0.45, 10), "before it they told of half of them"


def test_every_member_must_side_with_a_change():
    """A second member in whose features the images lie in another way: what it knew would be lost."""
    probs, given, _ = scene()
    found = STEPS["discriminant"](probs, given)
    draw = torch.Generator().manual_seed(1)
    other = torch.nn.functional.one_hot(probs.argmax(dim=1), 4) + 0.1 * torch.randn(probs.shape, generator=draw)
    other = normalise(other)  # its clusters are the labels as they were
    both = replace(given, image_features_ND=torch.cat([given.image_features_ND, other], dim=1), widths=(24, 4))
    alone, changed_N = guards.support(probs, found, given)
    assert float(alone.mean()) > 0.5 and torch.equal(changed_N, found.argmax(dim=1) != probs.argmax(dim=1))
    assert float(guards.support(probs, found, both)[0].mean()) < 0


def test_a_witness_judges_alone():
    probs, given, _ = scene()
    found = STEPS["discriminant"](probs, given)
    draw = torch.Generator().manual_seed(1)
    other = torch.nn.functional.one_hot(probs.argmax(dim=1), 4) + 0.1 * torch.randn(probs.shape, generator=draw)
    seen = replace(given, witness_ND=normalise(other))  # its clusters are the labels as they were
    assert float(guards.support(probs, found, given)[0].mean()) > 0.5
    assert float(guards.support(probs, found, seen)[0].mean()) < 0
    kept, outcome = guards.guarded("discriminant", lambda: found, probs, seen)
    assert kept is probs and outcome.refused


def test_support_written_out(monkeypatch):
    """Two groups of five on a line; the last of the first group is given to the second."""
    monkeypatch.setattr(guards, "NEIGHBOURS", 5)
    angle = torch.tensor([0.0, 0.01, 0.02, 0.03, 0.04, 1.0, 1.01, 1.02, 1.03, 1.04])
    images = torch.stack([angle.cos(), angle.sin()], dim=1)
    old = torch.nn.functional.one_hot(torch.tensor([0] * 5 + [1] * 5), 2).float()
    new = old.clone()
    new[4] = torch.tensor([0.0, 1.0])
    found, changed_N = guards.support(old, new, Evidence(images, images[[0, 5]]))
    assert changed_N.tolist() == [False] * 4 + [True] + [False] * 5
    assert found.tolist() == pytest.approx([1 / 5 - 4 / 5])  # of the five others nearest, one is of the second group


def test_an_even_finding_is_trusted_and_an_uneven_one_is_not():
    even = torch.eye(4).repeat(5, 1)
    one = even[even[:, 0] == 1]
    assert guards.trust(even, even) == 1.0 and guards.trust(one, one) == 0.0
    assert guards.trust(even[:1].expand_as(even), even) == 0.0  # classes that the labels did not tell of
    assert guards.trust(even.repeat(4, 1), even.repeat(4, 1)) == 0.0  # of many images neighbours know better
    assert refine.classes_in_effect(even) == pytest.approx(1.0)
    assert refine.classes_in_effect(even[even[:, 0] + even[:, 1] == 1]) == pytest.approx(0.5)


def test_few_classes_in_effect():
    probs, given, label_N = scene((1, 0, 0, 0), tilt=0.0)
    split = probs.clone()
    split[given.image_features_ND[:, 0] > given.image_features_ND[:, 0].median()] = torch.eye(4)[1]
    assert "classes in effect, of 4" in guards.few_classes(probs)
    found, outcome = guards.guarded("any", lambda: split, probs, given)
    assert found is probs and outcome.refused


def test_a_class_that_vanishes_or_swallows_is_named():
    probs, given, label_N = scene()
    perfect = torch.nn.functional.one_hot(label_N, 4).float()
    given = replace(given, member_probs=(perfect, perfect))
    swallowed = perfect[torch.where(label_N == 1, 0, torch.arange(len(label_N)))]
    swallowed[label_N == 2] = perfect[0]
    found, outcome = guards.guarded("any", lambda: swallowed, perfect, given)
    assert found is perfect
    assert "a from 25.0% to 75.0%, b from 25.0% to 0.0%, c from 25.0% to 0.0%" in outcome.refused


def test_a_lost_class_that_comes_back_is_no_collapse():
    _, given, label_N = scene()
    perfect = torch.nn.functional.one_hot(label_N, 4).float()
    lost = perfect.clone()
    lost[label_N == 3] = perfect[0]
    assert guards.collapse(lost, perfect, replace(given, member_probs=(lost,))) == ""


def test_what_does_not_converge_is_not_kept():
    probs, given, _ = scene()

    def never():
        raise NotConverged("too far")

    for run_step in (guards.guarded, guards.unguarded):
        found, outcome = run_step("any", never, probs, given)
        assert found is probs and outcome.refused == "not converged: too far" and outcome.changed == 0


def test_a_step_that_changes_no_label_is_kept():
    probs, given, _ = scene()
    found, outcome = guards.guarded("any", lambda: probs**2, probs, given)
    assert outcome.refused == "" and outcome.changed == 0 and torch.equal(found, probs**2)


def test_the_order_of_images_decides_nothing(monkeypatch):
    probs, given, _ = scene()
    found = STEPS["discriminant"](probs, given)
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(3))
    shuffled = replace(given, image_features_ND=given.image_features_ND[order], member_probs=(probs[order],))
    for most in (guards.REFERENCE, 100):  # all images, or some of them
        monkeypatch.setattr(guards, "REFERENCE", most)
        here, changed_N = guards.support(probs, found, given)
        there, shuffled_N = guards.support(probs[order], found[order], shuffled)
        assert torch.equal(changed_N[order], shuffled_N)
        whole, whole_there = torch.zeros(len(probs)), torch.zeros(len(probs))
        whole[changed_N], whole_there[shuffled_N] = here, there
        assert torch.equal(whole[order], whole_there)


def test_kappa_is_cohens():
    from sklearn.metrics import cohen_kappa_score

    labels = torch.randint(3, (2000,), generator=torch.Generator().manual_seed(0))
    near = torch.arange(2000).roll(1)[:, None]  # everybody's only neighbour is the one before
    assert guards.kappa(labels, near) == pytest.approx(cohen_kappa_score(labels, labels[near[:, 0]]), abs=1e-5)


def test_one_image_keeps_its_label():
    probs, given, _ = scene(n=4)
    one = Evidence(given.image_features_ND[:1], given.text_features_CD, (probs[:1],))
    found, outcome = guards.guarded("any", lambda: probs[:1].roll(1, dims=1), probs[:1], one)
    assert found is not None and outcome.refused


class TestInTheChain:
    @pytest.fixture
    def refined(self, project_root):
        competition = project_root / "competitions" / "tiny.yaml"
        competition.write_text(competition.read_text() + "\nrules: {test_set: true}\n")
        write_yaml(
            project_root / "ensembles" / "refined.yaml",
            {"members": {"vit": 1.0}, "refine": [{"prior": {"to": [20.0, 2.0, 1.0]}}]},
        )
        return project_root

    def test_refused_is_loud_and_the_labels_are_those_without(self, refined, capsys):
        write_yaml(refined / "ensembles" / "plain.yaml", {"members": {"vit": 1.0}})
        without = chain_classes.decide(fresh(refined), "plain").labels
        made = submit(fresh(refined), "refined")
        said = capsys.readouterr()
        outcome = json.loads(made.with_suffix(".json").read_text())["refinement"][0]
        assert outcome["step"] == "prior" and outcome["refused"]
        assert "warning: REFINEMENT NOT KEPT" in said.err and "refined: prior" in said.err
        assert chain_classes.decide(fresh(refined), "refined").labels == without

    def test_without_guards_it_is_kept(self, refined):
        recipe = {"members": {"vit": 1.0}, "refine": [{"prior": {"to": [20.0, 2.0, 1.0]}}], "guards": False}
        write_yaml(refined / "ensembles" / "refined.yaml", recipe)
        decision = chain_classes.decide(fresh(refined), "refined")
        assert decision.outcomes[0].refused == "" and decision.outcomes[0].changed > 0
        assert decision.labels.count(0) > 15

    def test_on_the_command_line(self, refined):
        done = pipeline(refined, "submit", "--competition", "tiny", "--ensemble", "refined", "--dtype", "fp32")
        assert done.returncode == 0 and "REFINEMENT NOT KEPT" in done.stderr and "Traceback" not in done.stderr

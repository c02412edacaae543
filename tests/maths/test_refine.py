"""Steps over class probabilities: each equals its formula written out, keeps the order of images and classes."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.core.errors import Mismatch, UserError
from pipeline.maths import refine
from pipeline.maths.refine import STEPS, Evidence, NotConverged, discriminant
from pipeline.maths.refine import frolic as frolic_module
from pipeline.maths.refine import prior as prior_module
from pipeline.maths.refine.neighbours import affinity, nearest
from pipeline.maths.zeroshot import normalise

from ..conftest import refused

CASES = [
    ("prior", {}),
    ("prior", {"gamma": 0.5}),
    ("prior", {"to": [1.0, 2.0, 3.0, 4.0]}),
    ("prior", {"method": "transport"}),
    ("stata", {}),
    ("transclip", {}),
    ("propagate", {}),
    ("frolic", {}),
    ("discriminant", {}),
    ("discriminant", {"mix": 1.0, "unbias": True}),
    ("recommended", {}),
]


def evidence(n: int, classes: int, dimensions: int = 12, seed: int = 0, gap: float = 1.0) -> tuple:
    """Images in clusters, texts near the clusters but in a region of their own, and zero-shot probabilities."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dimensions, generator=draw)
    label_N = torch.arange(n) % classes
    images = normalise(centres[label_N] + 0.5 * torch.randn(n, dimensions, generator=draw))
    shift = gap * torch.randn(dimensions, generator=draw)
    texts = normalise(centres + 0.3 * torch.randn(classes, dimensions, generator=draw) + shift)
    probs = (8 * images @ texts.T).softmax(dim=1)
    return probs, Evidence(images, texts, (probs,), tuple(f"class {c}" for c in range(classes))), label_N


def permuted(probs, given, images, classes):
    return probs[images][:, classes], Evidence(
        given.image_features_ND[images],
        given.text_features_CD[classes],
        tuple(member[images][:, classes] for member in given.member_probs),
        tuple(given.class_names[c] for c in classes),
    )


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_order_of_images_and_classes_changes_nothing(name, arguments):
    probs, given, _ = evidence(60, 4)
    images, classes = torch.randperm(60, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 3, 1])
    found = STEPS[name](probs, given, **arguments)
    if isinstance(arguments.get("to"), list):
        arguments = arguments | {"to": [arguments["to"][c] for c in classes]}
    again = STEPS[name](*permuted(probs, given, images, classes), **arguments)
    torch.testing.assert_close(again, found[images][:, classes], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_inputs_are_untouched_and_rows_sum_to_one(name, arguments):
    probs, given, _ = evidence(40, 4)
    probs[3], probs[5, 1] = 0.0, 0.0  # what the threshold leaves
    before = [t.clone() for t in (probs, given.image_features_ND, given.text_features_CD)]
    found = STEPS[name](probs, given, **arguments)
    for after, clone in zip((probs, given.image_features_ND, given.text_features_CD), before, strict=True):
        assert torch.equal(after, clone)
    assert found.shape == probs.shape and found.dtype == torch.float32
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(40))
    assert torch.equal(STEPS[name](probs, given, **arguments), found)


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (1, 6), (2, 2), (3, 9), (30, 2), (7, 3)])
def test_any_number_of_images_and_classes(name, n, classes):
    probs, given, _ = evidence(n, classes)
    try:
        found = STEPS[name](probs, given)
    except NotConverged:
        assert (
            name in ("transclip", "discriminant", "recommended") and n < classes
        )  # too few images to tell classes apart
        return
    assert found.shape == (n, classes) and torch.isfinite(found).all()


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_class_without_images_is_no_error(name):
    probs, given, _ = evidence(30, 3)
    far = normalise(-given.image_features_ND.mean(dim=0, keepdim=True))
    given = Evidence(given.image_features_ND, torch.cat([given.text_features_CD, far]))
    probs = (100 * given.image_features_ND @ given.text_features_CD.T).softmax(dim=1)
    assert probs[:, 3].max() < 1e-6
    assert torch.isfinite(STEPS[name](probs, given, **({"gamma": 0.9} if name == "prior" else {}))).all()


def test_every_step_says_what_it_uses_and_where_it_is_from():
    for name, function in STEPS.items():
        assert function.uses == "test_set", name
        assert "arXiv" in inspect.getdoc(function) and "O(N" in inspect.getdoc(function), name


def test_prior_of_sinkhorn_is_met_by_class_biases_alone():
    probs, given, _ = evidence(200, 4)
    target = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = STEPS["prior"](probs, given, to=target.tolist())
    torch.testing.assert_close(found.mean(dim=0), target, atol=1e-3, rtol=0)
    bias = found.log() - probs.log()
    bias = bias - bias[:, :1]  # constants of the rows
    torch.testing.assert_close(bias, bias[:1].expand_as(bias), atol=1e-4, rtol=1e-4)


def test_prior_of_sinkhorn_equals_the_fixed_point_written_out():
    probs, given, _ = evidence(20, 3)
    b = np.zeros(3)
    for _ in range(2000):
        mean = np.zeros(3)
        for row in probs.double().numpy():
            odds = np.exp(np.log(row) + b)
            mean += odds / odds.sum() / len(probs)
        b += np.log(1 / 3) - np.log(mean)
    expected = probs.double() * torch.from_numpy(np.exp(b))
    expected = (expected / expected.sum(dim=1, keepdim=True)).float()
    torch.testing.assert_close(STEPS["prior"](probs, given, tolerance=1e-6), expected, atol=1e-5, rtol=0)


def test_prior_by_transport_is_the_best_assignment():
    from scipy.optimize import linear_sum_assignment

    probs, given, _ = evidence(12, 3)
    cost = -probs.double().log().numpy()
    images, places = linear_sum_assignment(np.repeat(cost, 4, axis=1))  # four places for each class
    expected = torch.tensor(places // 4)[np.argsort(images)]
    assert torch.equal(STEPS["prior"](probs, given, method="transport").argmax(dim=1), expected)


def test_prior_softened_to_the_predicted_mix_changes_nothing():
    probs, given, _ = evidence(50, 4)
    torch.testing.assert_close(STEPS["prior"](probs, given, gamma=1.0), probs, atol=1e-5, rtol=0)


def test_prior_of_named_classes_and_errors():
    probs, given, _ = evidence(30, 3)
    named = {"class 2": 3.0, "class 0": 1.0, "class 1": 2.0}
    assert torch.equal(STEPS["prior"](probs, given, to=named), STEPS["prior"](probs, given, to=[1.0, 2.0, 3.0]))
    with refused(Mismatch, "prior: to", "class 1"):
        STEPS["prior"](probs, given, to={"class 0": 1.0, "class 2": 1.0})
    with refused(Mismatch, "prior: to", "2 shares of 3 classes"):
        STEPS["prior"](probs, given, to=[1.0, 1.0])
    with refused(UserError, "method: transport", "'method: sinkhorn'"):
        STEPS["prior"](torch.ones(1, 3).expand(1_000_000, 3), given, method="transport")
    with pytest.raises(NotConverged):
        STEPS["prior"](probs, given, to=[1.0, 1.0, 5.0], iterations=1)
    assert STEPS["prior"](probs, given, to=[1.0, 1.0, 0.0])[:, 2].max() == 0


def naive_affinity(features, k):
    n = len(features)
    w = torch.zeros(n, n)
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: -float(features[i] @ features[j]))
        for j in others[:k]:
            w[i, j] = max(0.0, float(features[i] @ features[j]))
    return (w + w.T) / 2


def log_gaussian(f, mu, sigma):
    terms = zip(f.tolist(), mu.tolist(), sigma.tolist(), strict=True)
    return -0.5 * sum((a - m) ** 2 / s + math.log(s) for a, m, s in terms)


def assignments(y, logs, w, z, times):
    for _ in range(times):
        z = torch.stack([(y[i].log() + logs[i] + w[i] @ z).softmax(dim=0) for i in range(len(y))])
    return z


def test_neighbours_in_chunks_are_those_of_the_whole_matrix(monkeypatch):
    _, given, _ = evidence(23, 3)
    whole = affinity(given.image_features_ND, 4).to_dense()
    torch.testing.assert_close(whole, naive_affinity(given.image_features_ND, 4))
    monkeypatch.setattr(refine.neighbours, "CHUNK_VALUES", 50)
    torch.testing.assert_close(affinity(given.image_features_ND, 4).to_dense(), whole)
    assert nearest(given.image_features_ND, given.text_features_CD, 5)[0].shape == (23, 3)


def test_transclip_equals_its_formulas():
    probs, given, _ = evidence(24, 3, dimensions=5)
    f, y = given.image_features_ND.double(), probs.double()
    w, z = naive_affinity(f, 3).double(), y
    mu = torch.stack([f[y[:, k].argsort(descending=True)[:8]].mean(dim=0) for k in range(3)])
    sigma = torch.full((5,), 1 / 5, dtype=torch.float64)
    for _ in range(10):
        logs = torch.tensor([[log_gaussian(f[i], mu[k], sigma) for k in range(3)] for i in range(24)])
        z = assignments(y, logs, w, z, 5)
        mu = torch.stack([(z[:, k, None] * f).sum(dim=0) / z[:, k].sum() for k in range(3)])
        sigma = sum(z[i, k] * (f[i] - mu[k]) ** 2 for i in range(24) for k in range(3)) / 24
    torch.testing.assert_close(STEPS["transclip"](probs, given), z.float(), atol=1e-3, rtol=0)


def test_stata_equals_its_formulas():
    probs, given, _ = evidence(24, 3, dimensions=5)
    f, t, y = given.image_features_ND.double(), given.text_features_CD.double(), probs.double()
    w, z = naive_affinity(f, 3).double(), y
    anchor = sum(y[i, k] * (f[i] - t[k]) ** 2 for i in range(24) for k in range(3)) / 24
    for _ in range(10):
        logs = torch.zeros(24, 3, dtype=torch.float64)
        for k in range(3):
            n_k = z[:, k].sum()
            beta = n_k / (n_k + 1.0)
            mu = beta * (z[:, k, None] * f).sum(dim=0) / n_k + (1 - beta) * t[k]
            spread = (z[:, k, None] * (f - mu) ** 2).sum(dim=0) / n_k
            sigma = beta * spread + (1 - beta) * (anchor + (t[k] - mu) ** 2)
            logs[:, k] = torch.tensor([log_gaussian(f[i], mu, sigma) for i in range(24)])
        z = assignments(y, logs, w, z, 5)
    torch.testing.assert_close(STEPS["stata"](probs, given), z.float(), atol=1e-3, rtol=0)


def test_propagate_equals_the_dense_inverse():
    probs, given, _ = evidence(25, 4)
    f, t = given.image_features_ND.double(), given.text_features_CD.double()
    w = torch.zeros(29, 29, dtype=torch.float64)
    for i in range(25):
        for j in sorted((j for j in range(25) if j != i), key=lambda j: -float(f[i] @ f[j]))[:3]:
            w[4 + i, 4 + j] = max(0.0, float(f[i] @ f[j]))
        for k in sorted(range(4), key=lambda k: -float(f[i] @ t[k]))[:3]:
            w[4 + i, k] = max(0.0, float(f[i] @ t[k])) ** 5
    w = w + w.T
    root = torch.diag(w.sum(dim=1).clamp_min(1e-300) ** -0.5)
    inverse = torch.linalg.inv(torch.eye(29, dtype=torch.float64) - 0.3 * root @ w @ root)
    scores = inverse[4:, :4]
    expected = (scores / scores.sum(dim=1, keepdim=True)).float()
    torch.testing.assert_close(STEPS["propagate"](probs, given, neighbours=3), expected, atol=1e-5, rtol=1e-4)


def test_frolic_equals_its_formulas():
    probs, given, _ = evidence(40, 3, dimensions=6, gap=0.0)
    f, t = given.image_features_ND.double().numpy(), given.text_features_CD.double().numpy()
    sigma = sum(np.outer(row, row) for row in f) / 40 - sum(np.outer(row, row) for row in t) / 3
    values, vectors = np.linalg.eigh(sigma)
    sigma = vectors @ np.diag(values.clip(0)) @ vectors.T
    inverse = 6 * np.linalg.inv(39 * sigma + np.trace(sigma) * np.eye(6))
    log_p = probs.double().log().numpy()
    second = np.array([[t[k] @ inverse @ x - t[k] @ inverse @ t[k] / 2 for k in range(3)] for x in f])

    def softmax(rows):
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        return rows / rows.sum(axis=1, keepdims=True)

    from scipy.optimize import brentq

    goal = softmax(log_p).max(axis=1).mean()
    heat = np.exp(brentq(lambda log: softmax(second / np.exp(log)).max(axis=1).mean() - goal, -15, 15, xtol=1e-10))
    fused, beta = log_p + second / heat, np.full(3, 1 / 3)
    while True:
        labels = (fused - np.log(beta)).argmax(axis=1)
        matrix = np.stack([softmax(fused)[labels == k].mean(axis=0) for k in range(3)], axis=1)
        before, (values, vectors) = beta, np.linalg.eig(matrix)
        beta = vectors[:, values.real.argmax()].real
        beta = beta / beta.sum()
        if np.abs(beta - before).sum() <= 0.01:
            break
    expected = torch.from_numpy(softmax(fused - np.log(beta))).float()
    torch.testing.assert_close(STEPS["frolic"](probs, given), expected, atol=1e-4, rtol=1e-3)


def test_discriminant_equals_its_formulas():
    probs, given, _ = evidence(24, 3, dimensions=5)
    f, y = given.image_features_ND.double().numpy(), probs.double().numpy()
    z, moved = y, 1.0
    while moved > 0.02:
        mu = np.stack([(z[:, k, None] * f).sum(axis=0) / z[:, k].sum() for k in range(3)])
        sigma = sum(z[i, k] * np.outer(f[i] - mu[k], f[i] - mu[k]) for i in range(24) for k in range(3)) / 24
        inverse = np.linalg.inv(sigma + np.trace(sigma) / 5 * np.eye(5))
        before, z = z, np.zeros((24, 3))
        for i in range(24):
            score = [np.log(y[i, k]) + mu[k] @ inverse @ f[i] - mu[k] @ inverse @ mu[k] / 2 for k in range(3)]
            z[i] = np.exp(score - max(score)) / np.exp(score - max(score)).sum()
        moved = np.abs(z - before).sum(axis=1).mean() / 2
    torch.testing.assert_close(STEPS["discriminant"](probs, given), torch.from_numpy(z).float(), atol=1e-3, rtol=0)


def test_the_discriminant_with_fewer_images_than_dimensions_is_the_same():
    """Then the axes come from the products of images; more dimensions that are all 0 must change nothing but ridge."""
    probs, given, _ = evidence(24, 3, dimensions=5)
    wide = torch.cat([given.image_features_ND, torch.zeros(24, 25)], dim=1)
    padded = STEPS["discriminant"](probs, Evidence(wide, given.text_features_CD), ridge=6.0)  # of the mean variance
    torch.testing.assert_close(padded, STEPS["discriminant"](probs, given, ridge=1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if not STEPS[case[0]].most])
def test_how_many_images_are_looked_at_together_changes_nothing(name, arguments, monkeypatch):
    """Sums of parts are sums of all: features may lie in a file that is read a part at a time."""
    probs, given, _ = evidence(60, 4)
    given = replace(given, witness_ND=given.image_features_ND.flip(1), image_features_ND=given.image_features_ND.half())
    expected = STEPS[name](probs, given, **arguments)
    monkeypatch.setattr(prior_module, "CHUNK_VALUES", 12 * 7)
    monkeypatch.setattr(discriminant, "CHUNK_VALUES", 12 * 7)
    found = STEPS[name](probs, given, **arguments)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


def test_the_discriminant_makes_no_copy_of_the_images(monkeypatch):
    probs, given, _ = evidence(20_000, 4, dimensions=64)
    given = replace(given, image_features_ND=given.image_features_ND.half())
    monkeypatch.setattr(prior_module, "CHUNK_VALUES", 2**14)
    monkeypatch.setattr(discriminant, "CHUNK_VALUES", 2**14)
    with torch.profiler.profile(profile_memory=True) as profile:
        STEPS["discriminant"](probs, given)
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0 < most < 20_000 * 64, "half of what they take in float16"


def uneven(n_of=(160, 20, 20)):
    """Three clusters of uneven size that overlap, and texts that like the last class too well."""
    draw = torch.Generator().manual_seed(4)
    centres = torch.randn(3, 8, generator=draw)
    label_N = torch.repeat_interleave(torch.arange(3), torch.tensor(n_of))
    images = normalise(centres[label_N] + 1.0 * torch.randn(len(label_N), 8, generator=draw))
    texts = normalise(centres)
    probs = (3 * images @ texts.T + torch.tensor([0.0, 0.0, 0.5])).softmax(dim=1)
    return probs, Evidence(images, texts, (probs,)), label_N


def test_an_estimated_mix_helps_where_classes_are_uneven():
    probs, given, label_N = uneven()
    right = [
        float((STEPS["discriminant"](probs, given, **more).argmax(dim=1) == label_N).float().mean())
        for more in ({}, {"mix": 1.0, "unbias": True})
    ]
    assert right[1] > right[0] + 0.02


def test_the_mix_is_the_likeliest_one():
    """Against scipy's optimiser: shares that maximise the likelihood of rows that are likelihoods of classes."""
    from scipy.optimize import minimize

    likelihood = (torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * 2).softmax(dim=1)
    share = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(300):
        share = discriminant.likely_mix(likelihood, share)
    loss = lambda free: -np.log(likelihood.numpy() @ (np.exp(free) / np.exp(free).sum())).sum()  # noqa: E731
    best = np.exp(minimize(loss, np.zeros(3)).x)
    np.testing.assert_allclose(share.numpy(), best / best.sum(), atol=1e-3)


def test_the_bias_makes_the_texts_mean_the_target():
    probs, _, _ = evidence(80, 3)
    target, bias = torch.tensor([0.2, 0.3, 0.5]).double(), torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(100):
        bias = discriminant.matching_bias(probs, target, bias)
    mean = (probs * bias / (probs * bias).sum(dim=1, keepdim=True)).mean(dim=0)
    torch.testing.assert_close(mean, target, atol=1e-4, rtol=0)


def test_a_version_of_recommended_is_for_good():
    probs, given, _ = uneven()
    kept = STEPS["discriminant"](probs, given, ridge=2.0, unbias=True, settle=0.005, iterations=200)
    assert torch.equal(STEPS["recommended"](probs, given, version=1), kept)
    assert torch.equal(STEPS["recommended"](probs, given), kept)


def test_a_witness_that_sees_what_the_members_see_changes_nothing_and_another_one_does():
    probs, given, _ = evidence(80, 3)
    alone = STEPS["discriminant"](probs, given)
    torch.testing.assert_close(STEPS["discriminant"](probs, replace(given, witness_ND=given.image_features_ND)), alone)
    other = normalise(torch.randn(80, 7, generator=torch.Generator().manual_seed(5)))
    assert not torch.allclose(STEPS["discriminant"](probs, replace(given, witness_ND=other)), alone, atol=1e-2)


def test_a_witness_tells_classes_that_the_members_confuse():
    probs, given, label_N = evidence(300, 3)
    draw = torch.Generator().manual_seed(6)
    confused = normalise(torch.randn(300, 16, generator=draw))
    clusters = normalise(torch.eye(24)[label_N] + 0.1 * torch.randn(300, 24, generator=draw))
    weak = (probs.log() / 4 + torch.randn(probs.shape, generator=draw)).softmax(dim=1)
    given = replace(given, image_features_ND=confused, member_probs=(weak,))
    right = lambda found: float((found.argmax(dim=1) == label_N).float().mean())  # noqa: E731
    seen = STEPS["recommended"](weak, replace(given, witness_ND=clusters))
    assert right(seen) > max(right(weak), right(STEPS["recommended"](weak, given))) + 0.1


def test_frolic_of_classes_that_never_mix_is_no_traceback():
    with pytest.raises(NotConverged, match="never mix"):
        frolic_module.principal_eigenvector(torch.eye(3).double())


def test_principal_eigenvector_of_a_chain():
    chain = torch.tensor([[0.9, 0.2], [0.1, 0.8]]).double()
    torch.testing.assert_close(frolic_module.principal_eigenvector(chain), torch.tensor([2.0, 1.0]).double() / 3)

"""The classifier as a function, against the same computed with open_clip alone."""

import http.server
import subprocess
import sys
import threading

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline import load_classifier
from pipeline.core.errors import Damaged, Mismatch, NotFound, Unavailable, UserError
from pipeline.models._tower import Tower

from ..conftest import IMAGES, ROOT, refused

LABELS = ["cat", "dog", "big bird", "zebra"]
TEMPLATES = ["a photo of a {}.", "a blurry {}", "{}"]


@pytest.fixture
def classifier(project_root):
    return load_classifier("vit", root=project_root, dtype="fp32")


@pytest.fixture
def folder(project_root):
    return project_root / "data" / "tiny"


def plain(checkpoints, paths, templates) -> torch.Tensor:
    """open_clip's own transform, towers and zero-shot classifier; (N, C) probabilities."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{checkpoints / 'vit'}")
    makers = [lambda name, t=t: t.replace("{}", name) for t in templates]
    weights = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer("ViT-B-32"), LABELS, makers, use_tqdm=False
    )
    with torch.no_grad():
        pixels = torch.stack([transform(Image.open(path)) for path in paths])
        return (model.logit_scale.exp() * model.encode_image(pixels, normalize=True) @ weights).softmax(dim=-1)


@pytest.mark.parametrize("templates", [TEMPLATES[0], TEMPLATES])
def test_labels_and_scores_equal_open_clips(classifier, checkpoints, folder, templates):
    paths = [folder / f"{n}.jpg" for n in range(IMAGES)]
    expected = plain(checkpoints, paths, [templates] if isinstance(templates, str) else templates)
    found = classifier(paths, LABELS, templates)
    order = expected.argsort(dim=1, descending=True)
    assert [[one["label"] for one in row] for row in found] == [[LABELS[c] for c in row] for row in order.tolist()]
    scores = torch.tensor([[one["score"] for one in row] for row in found])
    torch.testing.assert_close(scores, expected.gather(1, order), atol=1e-4, rtol=1e-3)
    assert len({row[0]["label"] for row in found}) > 1, "labels that are all equal would prove nothing"


def test_the_same_labels_are_encoded_once(classifier, folder, monkeypatch):
    calls, real = [], Tower.encode_text
    monkeypatch.setattr(Tower, "encode_text", lambda self, prompts: calls.append(prompts) or real(self, prompts))
    image = Image.open(folder / "0.jpg")
    first = classifier(image, LABELS)
    assert all(classifier(image, LABELS) == first for _ in range(30))
    assert len(classifier([image] * 3, tuple(LABELS))) == 3
    assert calls == [[f"a photo of a {label}." for label in LABELS]]
    classifier(image, LABELS, "{}")
    assert len(calls) == 2


class TestImages:
    def test_every_form_gives_the_same(self, classifier, folder):
        path = folder / "3.jpg"
        array = np.asarray(Image.open(path))
        tensor = torch.from_numpy(array.copy())
        expected = classifier(path, LABELS)
        forms = [
            str(path),
            Image.open(path),
            array,
            array.transpose(2, 0, 1),
            array / 255,
            tensor,
            tensor.permute(2, 0, 1),
            tensor.permute(2, 0, 1).float() / 255,
        ]
        for form in forms:
            assert classifier(form, LABELS) == expected
        scores = [one["score"] for one in expected]
        for found in classifier(np.stack([array, array]), LABELS):
            assert [one["label"] for one in found] == [one["label"] for one in expected]
            assert [one["score"] for one in found] == pytest.approx(scores, rel=1e-4)
        assert classifier([], LABELS) == []

    def test_grey_and_transparent_ones(self, classifier):
        rng = np.random.default_rng(0)
        grey = rng.integers(0, 256, (20, 1), dtype=np.uint8)
        expected = classifier(Image.fromarray(grey), LABELS)
        assert classifier(grey, LABELS) == classifier(grey[:, :, None], LABELS) == expected
        rgba = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
        assert classifier(rgba, LABELS) == classifier(Image.fromarray(rgba), LABELS)

    def test_from_a_server(self, classifier, folder):
        handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=folder)  # noqa: E731
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            assert classifier(f"{url}/3.jpg", LABELS) == classifier(folder / "3.jpg", LABELS)
            for name, kind in (("none.jpg", Unavailable), (".DS_Store", Damaged)):
                with refused(kind, f"{url}/{name}"):
                    classifier(f"{url}/{name}", LABELS)
            server.shutdown()

    @pytest.mark.parametrize(
        ("image", "kind", "parts"),
        [
            ("nowhere.jpg", Damaged, ["nowhere.jpg"]),
            (7, UserError, ["int"]),
            (np.zeros((5, 5, 2)), UserError, ["(5, 5, 2)"]),
            (np.zeros(5), UserError, ["(5,)"]),
            (np.full((5, 5), 1.5), UserError, ["float64", "0 to 1"]),
            (np.full((5, 5), 256), UserError, ["int64", "0 to 255"]),
            (np.full((5, 5), np.nan), UserError, ["float64"]),
        ],
    )
    def test_mistakes(self, classifier, image, kind, parts):
        with refused(kind, *parts):
            classifier(image, LABELS)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"candidate_labels": []}, ["candidate_labels", "[]"]),
        ({"candidate_labels": ["a", " "]}, ["candidate_labels", "['a', ' ']"]),
        ({"candidate_labels": ["a", "b", "a"]}, ["candidate_labels", "'a'"]),
        ({"candidate_labels": ["a"], "hypothesis_template": "a photo"}, ["hypothesis_template", "'a photo'", "{}"]),
        ({"candidate_labels": ["a"], "hypothesis_template": []}, ["hypothesis_template"]),
        ({"candidate_labels": ["a"], "top_k": 0}, ["top_k: 0"]),
    ],
)
def test_mistakes_in_the_question(classifier, folder, arguments, parts):
    with refused(UserError, *parts):
        classifier(folder / "0.jpg", **arguments)


def test_top_k_keeps_the_best(classifier, folder):
    everything = classifier(folder / "0.jpg", LABELS)
    assert classifier(folder / "0.jpg", LABELS, top_k=2) == everything[:2]
    assert len(classifier(folder / "0.jpg", LABELS, top_k=99)) == len(LABELS)


def test_a_sigmoid_model_gives_each_labels_own_probability(classifier, folder):
    classifier._tower("image").logit_bias = -3.0
    scores = {one["label"]: one["score"] for one in classifier(folder / "0.jpg", LABELS)}
    for label in LABELS:
        (alone,) = classifier(folder / "0.jpg", [label])
        assert alone["score"] == pytest.approx(scores[label], rel=1e-4)
    assert sum(scores.values()) != pytest.approx(1, abs=0.01)


def test_a_model_and_a_recipe_of_different_sizes(project_root, folder):
    (project_root / "preprocess" / "large.yaml").write_text("size: 48\nops: [resize]\n")
    with refused(Mismatch, "large.yaml", "48", "vit", "32"):
        load_classifier("vit", preprocess="large", root=project_root)(folder / "0.jpg", LABELS)
    with refused(NotFound, "'vitt'", "Did you mean 'vit"):
        load_classifier("vitt", root=project_root)


def test_importing_the_package_imports_no_torch():
    code = "import sys, pipeline; assert 'torch' not in sys.modules; assert pipeline.load_classifier"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_outside_a_project_root_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(NotFound, "'vit'", "run from the project's folder", "root="):
        load_classifier("vit")

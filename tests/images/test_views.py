"""Test-time views: what they show, how they are pooled, and that recipes without them are untouched."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

from pipeline.chain import features as chain_features
from pipeline.chain import preprocess
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.core.errors import Damaged, NotFound, UserError
from pipeline.images.ops import compile_recipe
from pipeline.maths import zeroshot
from pipeline.recipes import Preprocess

from ..conftest import IMAGES, SIZE, fresh, prompt_set, refused, write_images, write_yaml

OPS = [{"resize": "squash"}]
VIEWS = ["identity", "hflip", {"rotate": 25}, {"rotate": -25}, {"zoom": 0.5}, "five_crop"]


@pytest.fixture
def image() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def pixels(image: Image.Image, views: list) -> np.ndarray:
    recipe = Preprocess.parse({"size": 32, "ops": OPS, "views": views}, "r.yaml")
    return compile_recipe(recipe, "r.yaml")(image).transpose(0, 2, 3, 1)


def test_views_equal_torchvision(image):
    resize = T.Resize((32, 32), T.InterpolationMode.BICUBIC)
    expected = [
        image,
        F.hflip(image),
        F.rotate(image, 25, T.InterpolationMode.BICUBIC),
        F.rotate(image, -25, T.InterpolationMode.BICUBIC),
        F.center_crop(image, [20, 30]),
        *F.five_crop(image, [32, 48]),
    ]
    seen = pixels(image, VIEWS)
    assert seen.shape == (10, 32, 32, 3)
    for view, reference in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(view, np.asarray(resize(reference)))


@pytest.mark.parametrize(
    ("recipe", "kind", "parts"),
    [
        ({"views": ["flip"]}, NotFound, ["views.0", "'flip'", "Did you mean 'hflip'"]),
        ({"views": ["rotate"]}, UserError, ["rotate needs 'degrees'"]),
        ({"views": [{"rotate": 200}]}, UserError, ["rotate: degrees", "200"]),
        ({"views": [{"five_crop": {"shar": 0.5}}]}, NotFound, ["five_crop", "'shar'", "Did you mean 'share'"]),
        ({"views": [{"zoom": 0}]}, UserError, ["zoom: share"]),
        ({"views": ["identity"], "view_pooling": "confident", "keep_views": 2}, UserError, ["keep_views: 2"]),
        ({"views": ["identity"], "keep_views": 1}, UserError, ["keep_views needs 'view_pooling: confident'"]),
        ({"view_pooling": "confident"}, UserError, ["view_pooling needs views"]),
        ({"views": ["identity"], "view_pooling": "best"}, UserError, ["view_pooling", "'best'"]),
        ({"views": []}, UserError, ["r.yaml: views"]),
    ],
)
def test_mistakes(recipe, kind, parts):
    with refused(kind, *parts):
        compile_recipe(Preprocess.parse({"size": 32, "ops": OPS, **recipe}, "r.yaml"), "r.yaml")


def with_views(root, **recipe):
    write_yaml(root / "preprocess" / "tiny.yaml", {"size": SIZE, "ops": OPS, **recipe})
    return fresh(root)


def test_mean_of_normalised_features(project_root, checkpoints):
    """Against the model itself on each view."""
    import open_clip

    task = with_views(project_root, views=["identity", "hflip", "five_crop"])
    artefact, encoded = chain_features.of_member(task, task.project.member("vit@tiny"))
    assert encoded == IMAGES
    seen = preprocess.stage(task, "tiny").rows("pixels", 0, IMAGES)
    assert seen.shape == (IMAGES, 7, 3, SIZE, SIZE)
    model = open_clip.create_model(f"local-dir:{checkpoints / 'vit'}").eval()
    mean, std = (torch.tensor(model.visual.preprocess_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        views = [model.encode_image((seen[:, v] / 255 - mean) / std, normalize=True) for v in range(7)]
    expected = torch.nn.functional.normalize(torch.stack(views).mean(dim=0), dim=-1)
    features = artefact.rows("features", 0, IMAGES)
    assert features.dtype == torch.float16
    torch.testing.assert_close(features.float(), expected, atol=2e-3, rtol=1e-2)


def test_one_view_that_is_the_image_changes_no_value(project_root, task):
    plain = chain_probs.of_member(task, task.project.member("vit@tiny")).rows("probs", 0, IMAGES)
    for pooling in ("mean", "confident"):
        viewed = chain_probs.of_member(
            with_views(project_root, views=["identity"], view_pooling=pooling),
            with_views(project_root, views=["identity"], view_pooling=pooling).project.member("vit@tiny"),
        )
        torch.testing.assert_close(viewed.rows("probs", 0, IMAGES), plain, atol=1e-4, rtol=1e-2)


def test_the_most_confident_views_count(project_root):
    recipe = {"views": ["identity", "hflip", "five_crop"], "view_pooling": "confident"}
    task = with_views(project_root, **recipe)
    probs = chain_probs.of_member(task, task.project.member("vit@tiny")).rows("probs", 0, IMAGES)
    features = chain_features.stage(task, task.project.member("vit@tiny")).rows("features", 0, IMAGES)
    assert features.shape == (IMAGES, 7, 16)
    text, _ = chain_text.of_prompts(task, "vit", task.prompts)
    each = torch.stack([zeroshot.prompt_probs(features[:, v], text.features, 20.0) for v in range(7)], dim=1)
    torch.testing.assert_close(probs, zeroshot.confident_views(each, 4))  # half of 7, rounded up
    two = with_views(project_root, **recipe, keep_views=2)
    assert (
        chain_features.stage(two, two.project.member("vit@tiny")).digest
        == chain_features.stage(task, task.project.member("vit@tiny")).digest
    )
    torch.testing.assert_close(
        chain_probs.of_member(two, two.project.member("vit@tiny")).rows("probs", 0, IMAGES),
        zeroshot.confident_views(each, 2),
    )


def test_pooling_views_otherwise_keeps_the_pixels(project_root):
    digests = []
    for pooling in ("mean", "confident"):
        task = with_views(project_root, views=["identity", "hflip"], view_pooling=pooling)
        digests += [
            preprocess.stage(task, "tiny").digest,
            chain_features.stage(task, task.project.member("vit@tiny")).digest,
        ]
    assert digests[0] == digests[2]
    assert digests[1] != digests[3]


def test_shards_of_views_hold_fewer_images(project_root):
    """So that memory does not grow with the number of views."""
    with_views(project_root, views=["identity", "five_crop"])
    task = fresh(project_root, shard_rows=60)
    artefact, _ = chain_features.of_member(task, task.project.member("vit@tiny"))
    assert [shard[:2] for shard in artefact.shards()] == [(0, 10), (10, 20), (20, IMAGES)]
    assert [shard[:2] for shard in preprocess.stage(task, "tiny").shards()] == [(0, 10), (10, 20), (20, IMAGES)]


def test_a_submission_with_views(project_root):
    task = with_views(project_root, views=["identity", "hflip", {"rotate": 25}])
    assert submit(task, "both").read_text().count("\n") == IMAGES + 1


def test_all_damaged_images_are_named_and_whole_shards_kept(project_root):
    for number in (13, 21):
        path = project_root / "data" / "tiny" / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    task = fresh(project_root, shard_rows=5)
    with refused(Damaged, "/13.jpg", "/21.jpg", "2 images failed"):
        made(preprocess.stage(task, "tiny"))
    saved = {start for start, *_ in preprocess.stage(task, "tiny").shards()}
    assert {0, 5} <= saved and 10 not in saved


def test_plan_counts_the_views(project_root, capsys):
    from pipeline.cli import plan

    write_images(project_root / "data" / "tiny", 700)
    planned = []
    for views in (None, ["identity", "five_crop"]):
        plan.show(with_views(project_root, **({"views": views} if views else {})), "one")
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("preprocess"))
        planned.append(line.split("images")[1].split()[0])  # GB of pixels to write
    assert planned == ["0.002", "0.013"]  # 700 x 3 x 32 x 32 bytes, and six times that


def test_a_report_of_a_submission_with_confident_views(project_root):
    from pipeline.report import submission

    task = with_views(project_root, views=["identity", "hflip"], view_pooling="confident")
    submit(task, "one")
    page = submission.write(fresh(project_root), None, None).read_text()
    assert "t-SNE of vit@tiny" in page
    assert "views identity, hflip; resize squash at 32 pixels" in page


@pytest.mark.parametrize("pooling", ["mean", "confident"])
def test_the_classifier_sees_the_same_views(project_root, pooling):
    from pipeline import load_classifier

    task = with_views(project_root, views=["identity", "hflip", {"zoom": 0.7}], view_pooling=pooling)
    chain_features.of_member(task, task.project.member("vit@tiny"))
    features = chain_features.stage(task, task.project.member("vit@tiny")).rows("features", 0, IMAGES)
    text, _ = chain_text.of_prompts(task, "vit", prompt_set(("cat", "dog", "owl")))
    expected = chain_probs.view_probs(task.project.preprocess("tiny"), features, text.features, 20.0)
    classifier = load_classifier("vit", root=project_root, dtype="fp32")
    found = classifier(task.images.paths(), ["cat", "dog", "owl"], "{}")
    assert [row[0]["label"] for row in found] == [("cat", "dog", "owl")[n] for n in expected.argmax(dim=1)]
    torch.testing.assert_close(
        torch.tensor([row[0]["score"] for row in found]), expected.amax(dim=1), atol=3e-3, rtol=0
    )

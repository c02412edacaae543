"""DTYPE=auto: what is fastest and safe on the device at hand."""

from dataclasses import replace

import pytest
import torch

from pipeline import models
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.maths import zeroshot

from ..conftest import IMAGES, fresh


@pytest.mark.parametrize(
    "able, dtype", [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_auto_follows_the_processor(task, monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    task = replace(task, device_name="cpu", dtype_name="auto")
    assert task.dtype == dtype
    assert chain_text.made_from(task, "vit")["dtype"] == dtype, "features of another dtype are other features"
    assert replace(task, dtype_name="fp32").dtype == "fp32"


def test_similarity_is_float32_whatever_the_dtype_of_the_features():
    image, text = torch.randn(4, 8).half(), torch.randn(6, 8).bfloat16()
    probs = zeroshot.prompt_probs(image, text, 100.0)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs, (100 * image.float() @ text.float().T).softmax(1))


def test_the_best_of_several_vectors_of_an_image_counts():
    image, text = torch.randn(4, 3, 8), torch.randn(6, 8)
    best = torch.stack([image[:, query] @ text.T for query in range(3)]).amax(0)
    torch.testing.assert_close(zeroshot.prompt_probs(image, text, 7.0), (7 * best).softmax(1))
    single = zeroshot.prompt_probs(image[:, :1], text, 7.0)
    torch.testing.assert_close(single, zeroshot.prompt_probs(image[:, 0], text, 7.0))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_probabilities_of_lower_precision_are_close(project_root, dtype):
    exact = chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("vit@tiny")).rows(
        "probs", 0, IMAGES
    )
    other = chain_probs.of_member(
        replace(fresh(project_root), dtype_name=dtype),
        replace(fresh(project_root), dtype_name=dtype).project.member("vit@tiny"),
    ).rows("probs", 0, IMAGES)
    assert (exact - other).abs().max() < 0.1
    assert not torch.equal(exact, other)


def test_fp32_is_not_tf32_anywhere(task):
    """cuDNN's own default computes convolutions with ten bits of mantissa on newer GPUs."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    models.load("vit", task.project.model("vit"), task.project.root, "image", torch.device("cpu"), "fp32")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert "tf32" not in (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)

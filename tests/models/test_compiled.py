"""What COMPILE=1 makes of a tower, without a compiler: torch.compile's tracing alone."""

import functools

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch._dynamo.testing import EagerAndRecordGraphs

from pipeline.models import _compiled


class Block(nn.Module):
    """Attention as open_clip's towers call it, pooled."""

    def __init__(self, **options):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, **options)

    def forward(self, rows):
        return self.attn(rows, rows, rows, need_weights=False, attn_mask=None)[0].mean(dim=1)


@pytest.fixture
def traced(monkeypatch):
    """The programs that torch.compile makes, by a backend that keeps them and runs them as they are."""
    torch._dynamo.reset()
    kept = EagerAndRecordGraphs()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=kept))
    with torch._inductor.config.patch(freezing=False):  # and put back what is set meanwhile
        yield kept.graphs
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "options", [{"batch_first": True}, {"batch_first": False}, {"batch_first": True, "bias": False}]
)
@torch.inference_mode()
def test_attention_is_the_layers_own(traced, options):
    torch.manual_seed(0)
    block, rows = Block(**options).eval(), torch.randn(4, 5, 8)
    known = block(rows)
    run = _compiled.program(block, lambda module, rows: module(rows), torch.device("cpu"), 4)
    torch.testing.assert_close(run(block, rows), known, rtol=1e-5, atol=1e-6)
    (program,) = traced
    called = {getattr(node.target, "__name__", "") for node in program.graph.nodes}
    assert ("scaled_dot_product_attention" in called) == options["batch_first"], "others are the layer's own"
    assert ("multi_head_attention_forward" in called) != options["batch_first"]


@torch.inference_mode()
def test_batches_of_other_sizes_run_as_they_did(traced):
    block = Block(batch_first=True).eval()
    run = _compiled.program(block, lambda module, rows: module(rows), torch.device("cpu"), 4)
    for size in (4, 3, 1, 4, 2):
        rows = torch.randn(size, 5, 8)
        torch.testing.assert_close(run(block, rows), block(rows), rtol=1e-5, atol=1e-6)
    assert len(traced) == 1


@torch.inference_mode()
def test_a_layer_whose_forward_is_hooked_keeps_it(traced):
    """As accelerate does for a model that is spread over devices."""
    block = Block(batch_first=True).eval()
    hooked, calls = block.attn.forward, []

    def forward(*given, **options):
        calls.append(len(given))
        return hooked(*given, **options)

    block.attn.forward = forward
    _compiled.program(block, lambda module, rows: module(rows), torch.device("cpu"), 4)(block, torch.randn(4, 5, 8))
    assert calls == [3]

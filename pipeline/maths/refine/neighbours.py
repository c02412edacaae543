"""The graph of nearest neighbours in feature space, found in row chunks: no N x N matrix exists at any time."""

import torch
from torch import Tensor

from ...core.console import say

CHUNK_VALUES = 2**26  # similarities in memory at once: 256 MB
LONG = 50_000


def nearest(queries_ND: Tensor, features_MD: Tensor, k: int, itself: bool = False) -> tuple[Tensor, Tensor]:
    """(cosines, rows) of the `k` nearest of M features to each query, best first; (N, D), (M, D) -> 2 x (N, K).

    With `itself` the queries are the features, and none is its own neighbour. There are fewer than `k` columns
    where there are fewer features. O(N M D) time, O(M) memory for a chunk of queries.
    """
    n, m = len(queries_ND), len(features_MD)
    k = min(k, m - itself)
    if n * m > LONG**2:
        say("refine", "neighbours", f"{n} x {m} comparisons, in chunks")
    rows = max(1, CHUNK_VALUES // max(m, 1))
    cosines, found = [], []
    for start in range(0, n, rows):
        cosine_BM = queries_ND[start : start + rows].float() @ features_MD.float().T
        if itself:
            own = torch.arange(len(cosine_BM), device=cosine_BM.device)
            cosine_BM[own, own + start] = -torch.inf
        best = cosine_BM.topk(k, dim=1)
        cosines.append(best.values)
        found.append(best.indices)
    return torch.cat(cosines), torch.cat(found)


def affinity(features_ND: Tensor, k: int) -> Tensor:
    """Sparse symmetric (N, N): half of max(0, cosine) of each image's `k` nearest, plus its transpose."""
    n = len(features_ND)
    cosine_NK, neighbour_NK = nearest(features_ND, features_ND, k, itself=True)
    own = torch.arange(n, device=features_ND.device)[:, None].expand_as(neighbour_NK)
    there = torch.stack([own.flatten(), neighbour_NK.flatten()])
    values = cosine_NK.clamp_min(0).flatten() / 2
    both, twice = torch.cat([there, there.flip(0)], dim=1), torch.cat([values, values])
    return torch.sparse_coo_tensor(both, twice, (n, n), check_invariants=True).coalesce()

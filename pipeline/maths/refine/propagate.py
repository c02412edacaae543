"""Label propagation on a graph of images and class texts."""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from . import GRAPH, Evidence, NotConverged, step, unit_rows
from .neighbours import nearest

Count = Annotated[int, Field(ge=1)]
Reach = Annotated[float, Field(ge=0, lt=1)]
Power = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@step(uses="test_set", most=GRAPH)
def propagate(
    probs_NC: Tensor, evidence: Evidence, neighbours: Count = 5, alpha: Reach = 0.3, gamma: Power = 5.0
) -> Tensor:
    """ZLaP (Stojnic et al. 2024, arXiv 2404.04072); (N, C) -> (N, C).

    The nodes are the classes' texts and the images. Each image is joined to its `neighbours` nearest images, with
    weight max(0, cosine), and, found apart because texts lie far from images, to its nearest texts, with weight
    max(0, cosine)^gamma. With L the graph made symmetric and normalised, D^-1/2 (W + W^T) D^-1/2, the scores are the
    images' rows of (I - alpha L)^-1 Y, Y being 1 where a text meets its class; rows are made to sum to 1.
    The given probabilities count only for an image that nothing reaches. Float64, sparse, conjugate gradients of
    scipy: O(N^2 D) for the neighbours, in chunks, then O((N + C) k) a class and iteration.
    """
    from scipy.sparse import identity
    from scipy.sparse.linalg import cg

    classes = probs_NC.shape[1]
    graph = laplacian(evidence.image_features_ND, evidence.text_features_CD, neighbours, gamma)
    system = (identity(graph.shape[0], format="csr") - alpha * graph).tocsr()
    solved_NC = np.empty((len(probs_NC), classes))
    for label in range(classes):
        source = np.zeros(graph.shape[0])
        source[label] = 1.0
        solution, failed = cg(system, source, rtol=1e-8, atol=0.0, maxiter=1000)
        if failed:
            raise NotConverged(f"class {label}: conjugate gradients, {failed} iterations")
        solved_NC[:, label] = solution[classes:]
    scores_NC = torch.from_numpy(solved_NC).float().to(probs_NC.device).clamp_min(0)
    reached_N1 = scores_NC.sum(dim=1, keepdim=True) > 0
    return torch.where(reached_N1, unit_rows(scores_NC), unit_rows(probs_NC))


def laplacian(image_features_ND: Tensor, text_features_CD: Tensor, k: int, gamma: float) -> Any:
    """D^-1/2 (W + W^T) D^-1/2 as a scipy CSR matrix (C + N, C + N); a node without edges has a row of zeros."""
    from scipy.sparse import coo_array, diags_array

    classes, n = len(text_features_CD), len(image_features_ND)
    near = [
        (*nearest(image_features_ND, text_features_CD, k), 0, gamma),
        (*nearest(image_features_ND, image_features_ND, k, itself=True), classes, 1.0),
    ]
    weights, rows, columns = [], [], []
    for cosine_NK, found_NK, offset, power in near:
        weights.append((cosine_NK.double().clamp_min(0) ** power).flatten().cpu().numpy())
        rows.append(np.repeat(np.arange(n) + classes, found_NK.shape[1]))
        columns.append(found_NK.flatten().cpu().numpy() + offset)
    one_way = coo_array((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), 2 * (classes + n,))
    both = (one_way + one_way.T).tocsr()
    degree = both.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return (diags_array(scale) @ both @ diags_array(scale)).tocsr()

"""One image, with all that is known of it, as JSON."""

from ..chain import ensemble
from .pictures import Pictures
from .search import Search
from .session import Session
from .views import View

TOP, NEAR = 6, 12  # prompts of each member, neighbours


def of_image(session: Session, pictures: Pictures, row: int) -> dict:
    """Its names, sizes, classes, the top prompts of each member, its neighbours, its labels in all submissions."""
    seen, result = session.seen, session.result
    members = []
    for member, part in seen.parts.items():
        columns = ensemble.member_columns(seen.task, seen.recipe, member)
        probs_P = part.rows("probs", row, row + 1)[0]
        best = probs_P.topk(min(TOP, len(probs_P)))
        top = [
            [columns.prompts[column], int(columns.prompt_class[column]), float(prob)]
            for prob, column in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        members.append({"member": member, "prompts": top, "preprocess": member.preprocess})
    return {
        "row": row,
        "id": str(result.ids[row]),
        "size": list(pictures.size(row)),
        "label": int(result.labels[row]),
        "baseline": int(session.baseline.labels[row]),
        "truth": None if result.truth is None else int(result.truth[row]),
        "shares": [round(float(share), 4) for share in session.shares[row]],
        "members": members,
        "neighbours": neighbours(session, row),
        "submissions": session.history.of_image(row),
        "preprocess": list(dict.fromkeys(member["preprocess"] for member in members)),
    }


def neighbours(session: Session, row: int) -> list[list]:
    """The most similar other images: [row, cosine]."""
    try:
        rows, cosines = Search(session.engine, session.seen).by_likeness(View(kind="like", row=row))
    except ValueError:  # no member has a text tower
        return []
    pairs = [[int(r), round(float(c), 3)] for r, c in zip(rows[: NEAR + 1], cosines[: NEAR + 1], strict=True)]
    return [pair for pair in pairs if pair[0] != row][:NEAR]

"""How a page was made: enough to make it again."""

import json

import yaml

from ...chain.rules import WORDS
from ...recipes import Ensemble
from ..page import Details, Section, Table
from ..result import Result


def provenance(result: Result) -> Section | None:
    """How it was made: the main facts, and the submission's whole JSON."""
    made = result.made
    if not made:
        return None
    facts = {
        "recipe": made["recipe"]["name"],
        **_recipe(made["recipe"]),
        "uses": ", ".join(WORDS[use] for use in made.get("uses", [])) or "not noted",
        "data": made["data"],
        "images": f"{made['images']['count']:,} ({made['images']['digest']})",
        "prompts": f"{made['prompts']['count']:,} ({made['prompts']['digest']})",
        "digest": made["digest"],
        **surroundings(made),
    }
    if "weights" in made:
        facts["weights"] = _weights(**made["weights"])
    rows = [(key, str(value)) for key, value in facts.items()]
    for kind, named in (("member", made["members"]), ("witness", made.get("witness", {}))):
        rows += [(f"{kind} {name}", f"{how_seen(one)}, {one['digest']}") for name, one in named.items()]
    text = json.dumps(made, indent=1, ensure_ascii=False)
    return Section(
        "Provenance",
        "How this was made; enough to make it again.",
        [Table(("what", "value"), rows), Details("The whole JSON", text)],
    )


def _recipe(recipe: dict) -> dict:
    """Its keys and values; the members have lines of their own, and what is not as usual a line each."""
    usual = {key: field.default for key, field in Ensemble.model_fields.items()}
    return {
        key: yaml.safe_dump(value, default_flow_style=True, width=1000).strip() if isinstance(value, list) else value
        for key, value in recipe.items()
        if key in ("threshold", "pooling") or (key not in ("name", "members") and value not in (usual.get(key), []))
    }


def _weights(found: dict[str, float], even: str) -> str:
    """What became of weights that were looked for."""
    return f"auto: even, as {even}" if even else "auto: " + ", ".join(f"{w:.3f} {name}" for name, w in found.items())


def surroundings(made: dict) -> dict[str, str]:
    """Commit and versions, as submit.surroundings has them, in words."""
    git = made.get("git") or {}
    return {
        "commit": f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "none",
        "versions": ", ".join(f"{package} {version}" for package, version in made["versions"].items()),
    }


def how_seen(member: dict) -> str:
    """A member's preprocessing and dtype in words."""
    preprocess = member["preprocess"]
    ops = ", ".join(op if argument is None else f"{op} {argument}" for op, argument in preprocess["ops"])
    if "views" in preprocess:
        seen = ", ".join(view if argument is None else f"{view} {argument}" for view, argument in preprocess["views"])
        ops = f"views {seen}; {ops}"
    return f"{ops} at {member['preprocess']['size']} pixels, {member['dtype']}"

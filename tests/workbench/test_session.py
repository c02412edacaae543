"""The session of a page: what it shows is what `make submit` writes."""

import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.main_job import submit
from pipeline.cli._options import runtime_of
from pipeline.core.errors import UserError
from pipeline.recipes.reading import read_yaml
from pipeline.report.collect import read_labels
from pipeline.workbench import edits, panel
from pipeline.workbench.session import Session
from pipeline.workbench.views import View

from ..conftest import ROOT, fresh, write_images, write_yaml
from .conftest import add_prompt, session_of, weigh

TINY = {"prompt_set": "tiny"}


def submitted(root) -> np.ndarray:
    """The labels that `make submit` writes of the files as they are."""
    task = fresh(root)
    return read_labels(task, submit(task, "both"))


def weigh_prompts(weight: float, *prompts: list) -> dict:
    return {"kind": "weigh", "prompts": list(prompts), "weight": weight, **TINY}


def random_edit(session, choose: random.Random) -> dict:
    """Any edit of the page, sensible or not."""
    sets = session.task.prompts_of("tiny")
    column = choose.randrange(len(sets.prompts))
    label = sets.prompt_class[column]
    text = f"{choose.choice(['a photo', 'blue', 'yes', 'small: x', '#1'])} {choose.randrange(50)}"
    shared = read_yaml(session.overlay.folder / "prompts/tiny/_shared.yaml").get("templates", [])
    template = choose.randrange(max(1, len(shared)))
    found = shared[template] if shared else None
    of_templates = {"kind": "list", "key": "templates", "index": template, "found": found, **TINY}
    return choose.choice(
        [
            weigh(choose.choice([0, 0.1, 0.5, 1, 3]), choose.choice(["vit", "vit2@tiny-sharp"])),
            {"kind": "set", "key": "threshold", "value": choose.choice([0, 0.002, 0.06, 0.9])},
            {"kind": "set", "key": "pooling", "value": choose.choice(["mean", "max", "median", "embedding"])},
            {"kind": "set", "key": "blend", "value": choose.choice(["prompts", "classes"])},
            {"kind": "set", "key": "space", "value": choose.choice(["probability", "log"])},
            {"kind": "set", "key": "prompt_weights", "value": choose.choice(["given", "uniform"])},
            {
                "kind": "weigh",
                "prompts": [[label, sets.prompts[column]]],
                "weight": choose.choice([0, 0.5, 1, 2]),
                **TINY,
            },
            add_prompt(text, choose.randrange(3)),
            {"kind": "list", "key": "aliases", "do": "add", "label": label, "value": text, **TINY},
            {"kind": "name", "label": label, "value": choose.choice(["", text]), **TINY},
            {**of_templates, "do": "add", "value": f"{text} {{}}"},
            {**of_templates, "do": "replace", "value": f"{text} of {{}}"},
            {**of_templates, "do": choose.choice(["remove", "move"]), "to": choose.randrange(4)},
        ]
    )


def edit_at_random(root, edits: int, seed: int) -> int:
    """Random edits, and now and then undo; every few the files are saved and submitted. Returns how many were taken."""
    choose, taken = random.Random(seed), 0
    with session_of(root) as session:
        for number in range(edits):
            try:
                if choose.random() < 0.1:
                    session.step(back=choose.random() < 0.7)
                else:
                    session.edit([random_edit(session, choose)])
                taken += 1
            except UserError:
                pass
            if number % 25 == 24 or number == edits - 1:
                session.save()
                assert session.draft.changed == []
                assert (submitted(root) == session.seen.labels).all()
    return taken


def test_what_is_shown_is_what_submit_writes(root):
    assert edit_at_random(root, 25, seed=1) > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_what_is_shown_is_what_submit_writes_after_many_edits(root, seed):
    assert edit_at_random(root, 250, seed) > 100


def test_what_an_edit_leaves_in_memory_is_what_its_text_says(session):
    """Files are not parsed again for the next edit: comments, order and quotes come out as if they were."""
    shared = "prompts/tiny/_shared.yaml"
    session.put({shared: "# one\n" + session.draft.texts[shared].replace("\n- ", "\n# of the next\n- ")})
    choose = random.Random(3)
    for _ in range(60):
        edit, before = random_edit(session, choose), session.draft.texts
        where = session.overlay.folder, session.ensemble_file, session.task.class_names
        try:
            anew = edits.Files(before, *where, {}).after(edits.read(edit))
            session.edit([edit])
        except UserError:
            continue
        assert session.draft.texts == {**before, **anew}
    assert session._parsed


def test_weights_follow_their_prompt(session):
    session.edit(
        [{"kind": "weigh", "prompts": [[1, "a photo of a dog"], [0, "a photo of a Cats"]], "weight": 0.5, **TINY}]
    )
    session.edit([{"kind": "name", "label": 1, "value": "hound", **TINY}])
    change = {"kind": "list", "key": "templates", "do": "replace", "found": "a photo of a {}", "index": 1, **TINY}
    session.edit([{**change, "value": "one {}"}])
    dogs, cats = (yaml.safe_load(session.draft.texts[f"prompts/tiny/{name}.yaml"]) for name in ("dogs", "cats"))
    assert dogs["weights"] == {"one hound": 0.5}
    assert cats["weights"] == {"one Cats": 0.5}
    session.edit([{"kind": "list", "key": "templates", "do": "remove", "found": "{}", **TINY}])
    assert "without" not in yaml.safe_load(session.draft.texts["prompts/tiny/dogs.yaml"])


def test_what_cannot_be_is_told_and_changes_nothing(session):
    before, labels = dict(session.draft.texts), session.seen.labels
    wrong = [
        {"kind": "set", "key": "threshold", "value": 2.0},
        {"kind": "set", "key": "pooling", "value": "best"},
        {"kind": "list", "key": "refine", "do": "add", "value": "recommended"},
        {"kind": "list", "key": "templates", "do": "remove", "found": "not there", **TINY},
        {"kind": "list", "key": "templates", "do": "add", "value": "no place", **TINY},
        add_prompt("The whiskers", 1),
        weigh(0.5, "vit9"),
        {"kind": "weigh", "prompts": [[0, "no prompt"]], "weight": 0, **TINY},
        {"kind": "name", "label": 9, "value": "x", **TINY},
        {"kind": "list", "key": "prompts", "do": "add", "label": 0, "value": "x", "prompt_set": "../../etc"},
        {"kind": "shell"},
        "edit",
        None,
    ]
    for edit in wrong:
        with pytest.raises(UserError) as told:
            session.edit([weigh(2.0), edit])
        assert str(session.overlay.folder) not in str(told.value)
        assert session.draft.texts == before
    session.edit([weigh(0.5)])
    assert (session.seen.labels == labels).all()
    assert session.draft.past


def test_a_forbidden_step_says_why(session):
    with pytest.raises(UserError, match="line 6: refine: recommended uses the unlabelled test images.*forbids"):
        session.edit([{"kind": "list", "key": "refine", "do": "add", "value": "recommended"}])
    refused = [one["forbidden"] for one in panel.choices(session.task)["refine"]]
    assert all("tiny.yaml forbids" in why for why in refused)


NET = {"family": "timm", "architecture": "mobilenetv2_050", "weights": "m.safetensors", "preprocess": "tiny"}


def allow_the_test_set(root):
    path = root / "competitions/tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {"test_set": True}})


def test_a_witness_is_chosen_saved_and_goes_with_the_last_step(root):
    allow_the_test_set(root)
    write_yaml(root / "models.local.yaml", {"net": NET})
    with session_of(root) as session:
        offered = {one["name"]: one["forbidden"] for one in panel.choices(session.task)["witness"]}
        assert [name for name, why in offered.items() if not why] == ["", "vit2@tiny-sharp", "vit@tiny"]
        assert "make export" in offered["net"], "an image-only tower that is not encoded yet"
        witness = {"kind": "set", "key": "witness", "value": "vit2@tiny-sharp"}
        with pytest.raises(UserError, match="witness: takes part in refinement alone"):
            session.edit([witness])
        step = {"kind": "list", "key": "refine", "value": "recommended"}
        session.edit([weigh(0, "vit2@tiny-sharp"), {"kind": "set", "key": "guards", "value": False}])
        session.edit([{**step, "do": "add"}])
        alone = session.seen.decision.refined
        session.edit([witness])
        assert not torch.equal(session.seen.decision.refined, alone)
        assert panel.of_recipe(session.task, "both", {}, False)["keys"]["witness"] == "vit2@tiny-sharp"
        session.save()
        assert yaml.safe_load((root / "ensembles/both.yaml").read_text())["witness"] == "vit2@tiny-sharp"
        assert (submitted(root) == session.seen.labels).all()
        session.edit([{**step, "do": "remove", "found": "recommended"}])
        assert "witness" not in yaml.safe_load(session.draft.texts["ensembles/both.yaml"])


def test_a_forbidden_witness_says_why(session):
    offered = panel.choices(session.task)["witness"]
    assert [one["name"] for one in offered if not one["forbidden"]] == [""]
    assert all("tiny.yaml forbids" in one["forbidden"] for one in offered if one["name"])


def test_edits_of_other_programs_are_met(root, session):
    session.edit([weigh(0.9)])
    shared = root / "prompts/tiny/_shared.yaml"
    shared.write_text(shared.read_text().replace("blurry", "sharp"))
    assert session.look() == ["prompts/tiny/_shared.yaml"]
    assert "a sharp Cats." in session.task.prompts.prompts
    ensemble = root / "ensembles/both.yaml"
    ensemble.write_text(ensemble.read_text().replace("threshold: 0.002", "threshold: 0.02"))
    session.save()
    assert yaml.safe_load(ensemble.read_text()) == {"members": {"vit": 0.9, "vit2@tiny-sharp": 0.5}, "threshold": 0.02}
    assert (submitted(root) == session.seen.labels).all()


def test_a_conflict_is_never_overwritten(root, session):
    session.edit([weigh(0.9)])
    write_yaml(root / "ensembles/both.yaml", {"members": {"vit": 0.1, "vit2@tiny-sharp": 0.5}, "threshold": 0.002})
    with pytest.raises(UserError, match=r"both\.yaml: edited elsewhere as well"):
        session.save()
    assert yaml.safe_load((root / "ensembles/both.yaml").read_text())["members"]["vit"] == 0.1
    session.resolve("ensembles/both.yaml", mine=True)
    session.save()
    assert yaml.safe_load((root / "ensembles/both.yaml").read_text())["members"]["vit"] == 0.9


def test_a_broken_file_changes_nothing(root, session):
    labels, path = session.seen.labels, root / "ensembles/both.yaml"
    text = path.read_text()
    path.write_text("members: [")
    with pytest.raises(UserError, match=r"both\.yaml"):
        session.look()
    assert (session.seen.labels == labels).all()
    assert session.look() == []
    session.edit([weigh(0.75)])
    with pytest.raises(UserError, match="mend it there first"):
        session.save()
    assert path.read_text() == "members: ["
    path.write_text(text.replace("0.002", "0.003"))
    assert session.look() == ["ensembles/both.yaml"]


CRASH = """
import os, sys
from tests.conftest import fresh
from tests.workbench.conftest import Session, weigh
session = Session(fresh(sys.argv[1]), "both", None, {})
session.edit([weigh(0.875)])
session.keep()
os.kill(os.getpid(), 9)
"""


def test_what_is_unsaved_survives_a_crash(root):
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, str(root)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with session_of(root) as session:
        assert session.draft.changed == ["ensembles/both.yaml"]
        assert session.task.project.ensemble("both").members["vit@tiny"].weight == 0.875
        assert "taken up again" in session.notices[0]
        with session_of(root) as other:  # a second workbench beside it has its own
            assert other.draft.changed == []
            other.edit([{"kind": "set", "key": "threshold", "value": 0.01}])
            other.save()
        session.save()
        made = yaml.safe_load((root / "ensembles/both.yaml").read_text())
        assert (made["members"]["vit"], made["threshold"]) == (0.875, 0.01)
        session.keep()
        assert not session.store.path.exists()


def test_a_kept_draft_that_cannot_be_read_is_not_lost(root):
    folder = root / "cache/tiny/workbench"
    folder.mkdir(exist_ok=True)
    (folder / "draft-both-1.json").write_text(json.dumps({"base": {}, "texts": {"ensembles/both.yaml": "members: 3"}}))
    with session_of(root) as session:
        assert session.draft.changed == []
        assert "cannot be read" in session.notices[0]
    assert (folder / "draft-both-1.unreadable").exists()


def test_a_submission_is_pinned_opened_and_restored(root, session):
    assert session.baseline.number == 1
    texts = dict(session.draft.texts)
    session.edit([weigh(0.0), add_prompt("something else", 2)])
    with pytest.raises(UserError, match="save first"):
        session.submit()
    session.save()
    made = session.submit()
    assert made["number"] in (1, 2)
    session.pin(made["number"])
    assert session.change.flipped == 0
    session.look_at(1)
    assert session.viewing == 1
    assert (session.result.labels == session.history.baseline(1).labels).all()
    session.restore(1)
    assert session.viewing == 0
    assert session.draft.texts == texts
    assert (session.seen.labels == session.history.baseline(1).labels).all()
    with pytest.raises(UserError, match="no submission 77"):
        session.pin(77)


def test_a_submission_without_texts_restores_its_ensemble(root, session):
    path = next((root / "submissions/tiny").glob("001-*.json"))
    made = json.loads(path.read_text())
    del made["files"]
    path.write_text(json.dumps(made))
    session.edit([weigh(0.1)])
    session.restore(1)
    assert session.task.project.ensemble("both") == fresh(root).project.ensemble("both")
    assert "holds no prompts" in session.notices[0]


def test_an_address_brings_its_edits(root, session):
    from pipeline.workbench import recipes

    session.edit([weigh(0.9)])
    word = recipes.packed({name: session.draft.texts[name] for name in session.draft.changed})
    session.step(back=True)
    assert session.open_address(word)
    assert session.draft.changed == ["ensembles/both.yaml"]
    session.edit([weigh(0.8)])
    assert not session.open_address(word)
    for wrong in ("x", "eJw", recipes.packed({"../evil.yaml": "a"}), recipes.packed({"models.yaml": "a"})):
        with pytest.raises(UserError, match="address"):
            session.open_address(wrong)


def test_views(session):
    def rows(kind, **more):
        return session.rows(View(kind=kind, **more)).tolist()

    session.edit([weigh(0.0)])
    flipped = np.flatnonzero(session.seen.labels != session.baseline.labels).tolist()
    assert sorted(rows("flips")) == flipped
    assert sorted(rows("all")) == sorted(rows("uncertain")) == sorted(rows("text", text="a cat")) == list(range(23))
    assert sorted(r for label in range(3) for r in rows("class", label=label)) == list(range(23))
    assert rows("like", row=5)[0] == 5
    assert rows("name", text="2.JPG") == [2, 12, 22]
    margins = session.result.margin[rows("all", sort="least")]
    assert (np.diff(margins) >= 0).all()
    session.points = np.stack([np.arange(26.0), np.zeros(26)], axis=1)
    square = ((-1, -1), (3.5, -1), (3.5, 1), (-1, 1))
    assert rows("all", region=square) == [0, 1, 2, 3]
    for wrong in ({"kind": "like", "row": 99}, {"kind": "like"}):
        with pytest.raises(UserError):
            session.rows(View(**wrong))


def test_effects_are_those_of_the_report(session):
    from pipeline.report import collect

    told = session.effects(lambda: None)
    report = collect.of_ensemble(fresh(session.first.project.root), "both", features=False)
    assert [one[0] for one in told["prompts"]] == [use.flips for use in report.prompts]
    assert {one["member"]: one["flips"] for one in told["members"]} == {m.name: m.flips for m in report.members}
    assert told["disagreement"] == report.disagreement.round(4).tolist()


def test_new_prompts_are_encoded_once_and_images_never(session, capsys):
    session.edit([add_prompt("a very new prompt")])
    said = capsys.readouterr().out
    assert said.count("encoding 1 new prompts") == 2
    assert "images" not in said
    assert sum(key[0] == "text tower" for key in session.task.facts) == 2
    session.edit([add_prompt("another new prompt")])
    session.step(back=True)
    assert capsys.readouterr().out.count("encoding") == 2


def test_a_member_alone_is_an_ensemble_once_it_is_saved(root):
    text = "members:\n  vit@tiny: 1\n"
    with session_of(root, "vit-tiny", **{"ensembles/vit-tiny.yaml": text}) as session:
        assert session.draft.changed == ["ensembles/vit-tiny.yaml"]
        assert session.save() == ["ensembles/vit-tiny.yaml"]
    assert (root / "ensembles/vit-tiny.yaml").read_text() == text


def test_the_csv_is_checked_as_always(root, session):
    form = CsvFormat(session.first)
    made = session.submit()
    form.check((root / made["path"]).read_text())


def test_labels_of_the_reported_split_are_not_looked_at_unless_asked(monkeypatch, project_root):
    """`dev` is what is looked at by default, as in prompts-rank; a member alone becomes an ensemble."""
    from pipeline.cli import workbench
    from pipeline.cli._options import parse
    from pipeline.recipes import Project

    monkeypatch.chdir(project_root)
    for split in ("val", "test"):
        for name in ("Cats", "Dogs", "Big Birds"):
            write_images(project_root / "data" / "animals" / split / name, 3)
    content = {"reader": "folders", "path": "data/animals", "prompts": "tiny", "split": "test", "dev": "val"}
    write_yaml(project_root / "datasets" / "animals.yaml", content)
    for more, split, known in (([], "val", True), (["SPLIT=test"], "test", False), (["TEST_LABELS=1"], "test", True)):
        args = parse(["workbench", "DATASET=animals", "MODEL=vit", "DTYPE=fp32", *more])
        task, name, truth = workbench._dataset(runtime_of(args), args)
        assert (task.split, truth is not None) == (split, known)
    assert workbench._free_name(Project("."), name) == "vit-tiny"
    text = "members:\n  vit@tiny: 1\n"
    session = Session(task, "vit-tiny", truth, {"ensembles/vit-tiny.yaml": text})
    try:
        assert session.result.right.mean() == (session.seen.labels == truth).mean()
        assert session.baseline.title == "as opened"
        session.edit([add_prompt("a tabby")])
        assert session.history.table() == []
        for forbidden in (session.submit, lambda: session.pin(1), lambda: session.look_at(1)):
            with pytest.raises(UserError):
                forbidden()
        assert session.effects(lambda: None)["reliability"] is not None
        session.save()
        with pytest.raises(UserError, match="no submissions"):
            session.submit()
    finally:
        session.held.close()

"""Fine-tuning of tiny towers: what is learnt, what is written, that interruptions cost nothing, what is refused."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from pipeline import models
from pipeline.chain import features as chain_features
from pipeline.chain import rules
from pipeline.chain import text as chain_text
from pipeline.core import extras
from pipeline.core.errors import Exists, Forbidden, Mismatch, NotFound, Unavailable, UserError
from pipeline.labelled.task import DatasetTask
from pipeline.learn.finetune import layers, schedule, seed_of
from pipeline.learn.finetune.augment import Augmented
from pipeline.learn.finetune.loop import Loop
from pipeline.learn.finetune.network import mixed
from pipeline.learn.finetune.settings import Finetune
from pipeline.learn.tower import measure_tower, start, train_tower
from pipeline.learn.training_set import TrainingSet
from pipeline.models import heads
from pipeline.recipes import ModelEntry, Training
from pipeline.report import training as pages

from ..conftest import ROOT, pipeline, refused, write_yaml
from ..learn.test_training import artefacts, corrupt_test_split, fresh
from . import test_training

root, pets = test_training.root, test_training.pets  # fixtures
CPU = torch.device("cpu")
QUICK = {"epochs": 3, "batch": 16, "learning_rate": 2e-3, "alphas": [0.0, 0.5, 1.0]}
CONTRASTIVE = {"loss": "contrastive", **QUICK}
LIKELIHOOD = {"loss": "likelihood", **QUICK}
EVERYTHING = {
    **LIKELIHOOD,
    "schedule": "plateau",
    "plateau_patience": 1,
    "patience": 2,
    "layer_decay": 0.8,
    "head": "zero",
    "accumulate": 2,
    "save_minutes": 0.0,
    "augment": ["crop", "hflip", {"colour": 0.4}, "rand_augment", "erase"],
}


def recipe(settings: dict, **more) -> Training:
    base = {"model": "vit", "dataset": "pets", "method": {"finetune": settings}, "small": 0}
    return Training.parse(base | more, "t")


def run(root: Path, settings: dict, name: str = "t", **more):
    return train_tower(fresh(root), recipe(settings, **more), name, "t.yaml")[0]


def tower(root: Path, name: str):
    task = fresh(root)
    return models.load(name, task.project.model(name), task.project.root, "image", CPU, "fp32")


def test_contrastive_is_a_zero_shot_member_of_its_family(root):
    one = run(root, {**CONTRASTIVE, "alphas": [1.0]})
    entry = fresh(root).project.model("t")
    assert (entry.family, entry.weights, entry.trained_on) == ("open_clip", "trained/t", ("pets:train",))
    losses = [epoch["train_loss"] for epoch in one.record["history"]]
    assert len(losses) == 3 and losses[-1] < losses[0] and not (one.folder / "checkpoint").exists()
    before, after = tower(root, "vit").module.state_dict(), tower(root, "t").module.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("visual.")}, "all of the image tower, and nothing else"
    task = DatasetTask.of(fresh(root), "pets", asked_split="train")
    texts = [chain_text.of_prompts(task, name, task.prompts)[0].features for name in ("vit", "t")]
    assert torch.equal(*texts)
    trained, zero_shot = measure_tower(fresh(root), recipe(CONTRASTIVE), one, "t")
    assert trained.intervals["acc1"].value > zero_shot.intervals["acc1"].value
    pages.write_training(root / "page.html", recipe(CONTRASTIVE), [one], [trained, zero_shot])
    text = (root / "page.html").read_text()
    assert "Learning curves" in text and "Weight averages" in text and "finetune on vit@tiny" in text


def test_a_likelihood_run_leaves_a_tower_and_its_head(root):
    """Their probabilities as a member are those of the network that was trained."""
    one = run(root, {**LIKELIHOOD, "head": "zero"})
    project = fresh(root).project
    assert project.model("t").base == "t-tower@tiny" and project.model("t").trained_on == ("pets:train",)
    assert project.model("t-tower").trained_on == ("pets:train",)
    assert one.record["classes"]["Cat"] == {"train": 6, "validation": 2}
    source = TrainingSet(fresh(root), recipe(LIKELIHOOD))
    _, held = source.rows()
    examples, _ = chain_features.of_member(
        DatasetTask.of(fresh(root), "pets", asked_split="train"),
        DatasetTask.of(fresh(root), "pets", asked_split="train").project.member("t-tower@tiny"),
    )
    features = examples.rows("features", 0, len(examples.ids)).float()[held]
    probs = heads.load(one.folder / "head.safetensors", "t").probs(features)
    truth = torch.tensor(source.task.truth)[held]
    loss = -probs.gather(1, truth[:, None]).log().mean()
    assert float(loss) == pytest.approx(one.record["validation"]["loss"], abs=2e-3), "features are kept in float16"


def test_alpha_zero_is_what_training_started_from(root):
    one = run(root, {**LIKELIHOOD, "epochs": 1, "alphas": [0.0]})
    before, after = tower(root, "vit").module.state_dict(), tower(root, "t-tower").module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after)
    head = start(TrainingSet(fresh(root), recipe(LIKELIHOOD)), Finetune(loss="likelihood"), "t")
    assert torch.equal(heads.load(one.folder / "head.safetensors", "t").weight, head.weight)


def test_the_chosen_alpha_is_the_best_on_validation_and_the_log_has_every_step_once(root):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = run(root, CONTRASTIVE)
    log = EventAccumulator(str(root / "reports" / "tensorboard" / "t")).Reload()
    assert [event.step for event in log.Scalars("train/loss")] == list(range(9))
    assert [event.step for event in log.Scalars("validation/macro_f1")] == [3, 6, 9]
    scores = {entry["alpha"]: (entry["macro_f1"], -entry["loss"]) for entry in one.record["averages"]}
    assert scores[one.record["setting"]["alpha"]] == max(scores.values()) and set(scores) == {0.0, 0.5, 1.0}


def test_averages():
    first, second = {"w": torch.zeros(3), "n": torch.tensor(1)}, {"w": torch.ones(3), "n": torch.tensor(7)}
    assert torch.equal(mixed(first, second, 0.25)["w"], torch.full((3,), 0.25)) and mixed(first, second, 0.25)["n"] == 7
    assert torch.equal(mixed(first, second, 1.0)["w"], second["w"])


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "settings", [EVERYTHING, pytest.param({**CONTRASTIVE, "save_minutes": 0.0}, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_ends_in_the_bytes_of_an_uninterrupted_one(root, settings, monkeypatch):
    """It is cut off at every third step: before it is saved, after, in an epoch and at its end."""
    more = {"balance": "sampling"} if settings is EVERYTHING else {}
    run(root, settings, **more)
    whole = artefacts(root)
    shutil.rmtree(root / "trained")
    step, done = Loop._step, []

    def dying(self, *arguments):
        if len(done) % 3 == 2:
            done.append(0)
            raise Killed
        done.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(Loop, "_step", dying)
    for _ in range(20):
        try:
            run(root, settings, **more)
            break
        except Killed:
            pass
    assert done.count(0) >= 2 and artefacts(root) == whole


@pytest.mark.slow
def test_a_damaged_or_foreign_checkpoint_starts_again(root, monkeypatch):
    run(root, CONTRASTIVE)
    whole = artefacts(root)
    shutil.rmtree(root / "trained")
    monkeypatch.setattr(Loop, "sweep", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        run(root, {**CONTRASTIVE, "epochs": 1})
    monkeypatch.undo()
    folder = root / "trained" / "t" / "checkpoint"
    run(root, CONTRASTIVE)
    assert artefacts(root) == whole, "of another recipe"
    shutil.rmtree(root / "trained")
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(b"damaged")
    run(root, CONTRASTIVE)
    assert artefacts(root) == whole


def test_the_reported_split_reaches_nothing_that_is_trained(root):
    measure_tower(fresh(root), recipe(LIKELIHOOD), run(root, LIKELIHOOD), "t")
    before = artefacts(root)
    corrupt_test_split(root)
    shutil.rmtree(root / "trained")
    run(root, LIKELIHOOD)
    assert artefacts(root) == before


def distance(first: dict, second: dict) -> float:
    return sum(float((first[name] - second[name]).abs().sum()) for name in first)


def test_parts_of_a_batch_make_the_same_step(root):
    """Gradients of parts add up to those of the batch, with class weights too; and so they do when computed twice."""
    plain = {**LIKELIHOOD, "epochs": 1, "alphas": [1.0], "augment": "none", "head": "zero", "batch": 18}
    weights = {}
    for name, more in {"whole": {}, "parts": {"accumulate": 3}, "twice": {"gradient_checkpointing": True}}.items():
        run(root, {**plain, **more}, name, balance="weights")
        weights[name] = tower(root, f"{name}-tower").module.state_dict()
    before = tower(root, "vit").module.state_dict()
    for other in ("parts", "twice"):
        assert distance(weights["whole"], weights[other]) < 0.005 * distance(weights["whole"], before), other


def test_mixed_precision_learns_and_is_still_written_in_fp32(root):
    one = run(root, {**CONTRASTIVE, "precision": "bf16", "alphas": [1.0]})
    assert one.record["history"][-1]["train_loss"] < one.record["history"][0]["train_loss"]
    assert one.record["made_from"]["precision"] == "bf16"
    assert {t.dtype for t in tower(root, "t").module.parameters()} == {torch.float32}


def test_rules_that_forbid_labels_refuse_the_trained_tower(root):
    run(root, {**CONTRASTIVE, "epochs": 1})
    write_yaml(root / "ensembles" / "mine.yaml", {"members": {"t": 1}})
    with refused(Forbidden, "t@tiny", "competitions/tiny.yaml"):
        rules.check(fresh(root), "mine")


def test_schedules_are_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    settings = Finetune(loss="contrastive", warmup=0.0)
    for step in range(20):
        assert schedule.factor(settings, step, 20, []) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        cosine.step()
    scores = [0.1, 0.3, 0.3, 0.2, 0.3, 0.31, 0.1, 0.1, 0.1, 0.1, 0.4, 0.4, 0.4, 0.4]
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", 0.5, patience=2, threshold=0.0)
    for number, score in enumerate(scores):
        torchs.step(score)
        assert schedule.plateau(scores[: number + 1], 2, 0.5) == optimiser.param_groups[0]["lr"]
    warming = Finetune(loss="contrastive", warmup=0.25)
    assert [schedule.factor(warming, step, 16, []) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_layers_of_several_architectures(root):
    vit = layers.depths(tower(root, "vit").module)
    ordered = [
        "visual.conv1.weight",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.1.ln_1.weight",
        "visual.ln_post.weight",
    ]
    assert [vit[name] for name in ordered] == [0, 1, 2, 3]
    assert (vit["visual.class_embedding"], vit["visual.proj"]) == (0, 3)
    import timm

    mobile = layers.depths(timm.create_model("mobilenetv2_050", num_classes=0))
    assert mobile["conv_stem.weight"] == 0 and mobile["conv_head.weight"] == mobile["bn2.weight"] == 8
    assert [mobile[f"blocks.{n}.0.conv_pw.weight"] for n in (1, 6)] == [2, 7]
    resnet = layers.depths(timm.create_model("resnet18", num_classes=0))
    assert [resnet[f"layer{n}.1.conv1.weight"] for n in (1, 2, 3, 4)] == [2, 4, 6, 8]


def test_layers_learn_the_slower_the_deeper_they_lie(root):
    module = tower(root, "vit").module.visual.requires_grad_(True)
    groups = layers.groups(module, 1e-3, 0.1, 0.5)
    assert sorted({group["lr"] for group in groups}) == pytest.approx([1e-3 / 8, 1e-3 / 4, 1e-3 / 2, 1e-3])
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])


@pytest.mark.parametrize(
    "named",
    [
        None,
        "hflip",
        {"crop": 0.3},
        {"rotate": 20},
        "rand_augment",
        {"erase": 1.0},
        {"colour": {"strength": 0.5, "hue": 0.1}},
    ],
)
def test_augmentations_depend_on_the_place_alone(named):
    """uint8 in, uint8 out; the same place gives the same pixels, whatever was drawn before and in whichever process."""
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    steps = Finetune.parse({"loss": "contrastive", "augment": [named] if named else "none"}, "x").augmentations
    images = Augmented(lambda row: image, 24, steps, seed=3)
    first = [images[1, place, 0] for place in range(8)]
    torch.rand(5)
    state = torch.get_rng_state()
    again = [images[1, place, 0] for place in reversed(range(8))][::-1]
    assert all(map(torch.equal, first, again)) and torch.equal(state, torch.get_rng_state())
    assert {(one.dtype, one.shape) for one in first} == {(torch.uint8, (3, 24, 24))}
    assert all(torch.equal(one, image) for one in first) == (named is None)
    order = [[(1, place, 0) for place in part] for part in ((0, 1, 2), (3, 4, 5, 6, 7))]
    if named == "rand_augment":
        loaded = torch.cat(list(torch.utils.data.DataLoader(images, batch_sampler=order, num_workers=2)))
        assert torch.equal(loaded, torch.stack(first))


def test_places_have_seeds_of_their_own():
    places = list(itertools.product(range(3), range(3), range(9), range(9)))
    assert len({seed_of(*place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("settings", "more", "kind", "parts"),
    [
        ({}, {}, UserError, ["t.yaml: method.finetune", "'loss'"]),
        ({"loss": "contrastive", "epoch": 3}, {}, UserError, ["'epoch'", "Did you mean 'epochs'"]),
        ({"loss": "contrastive", "augment": ["hflop"]}, {}, NotFound, ["augment.0", "'hflop'"]),
        ({"loss": "contrastive", "augment": [{"crop": 3.0}]}, {}, UserError, ["augment.0: crop: smallest"]),
        ({"loss": "contrastive", "head": "zero"}, {}, UserError, ["'loss: likelihood'"]),
        ({"loss": "contrastive", "alphas": []}, {}, UserError, ["alphas"]),
        ({"loss": "contrastive", "precision": "fp16"}, {}, Unavailable, ["precision: fp16", "bf16 or fp32"]),
        ({"loss": "contrastive", "accumulate": 9, "batch": 16}, {}, Mismatch, ["9 parts", "'accumulate'"]),
        ({"loss": "contrastive"}, {"captions": "vit2"}, UserError, ["captions", "finetune"]),
        ({"loss": "contrastive"}, {"unseen": {"number": 2}}, UserError, ["unseen", "finetune"]),
        ({"loss": "contrastive"}, {"split": "test"}, Forbidden, ["split: 'test'", "'pets'"]),
        ({"loss": "contrastive"}, {"model": "vit@views"}, Mismatch, ["preprocess/views.yaml"]),
        ({"loss": "contrastive"}, {"model": "declip"}, Mismatch, ["family declip", "open_clip"]),
        ({"loss": "contrastive"}, {"model": "images-only"}, Mismatch, ["family timm"]),
    ],
)
def test_refusals(root, settings, more, kind, parts):
    write_yaml(root / "preprocess" / "views.yaml", {"size": 32, "ops": ["resize"], "views": ["identity", "hflip"]})
    write_yaml(
        root / "models.local.yaml",
        {
            "declip": {"family": "declip", "weights": "x", "preprocess": "tiny"},
            "images-only": {"family": "timm", "architecture": "resnet18", "weights": "x", "preprocess": "tiny"},
        },
    )
    with refused(kind, *parts):
        run(root, settings, **more)
    assert not (root / "trained").exists()


def test_nothing_is_overwritten(root, capsys):
    run(root, {**LIKELIHOOD, "epochs": 1})
    before = artefacts(root)
    run(root, {**LIKELIHOOD, "epochs": 1})
    assert "trained/t reused: same recipe, same data" in capsys.readouterr().out
    for name, settings in (("t", LIKELIHOOD), ("t-tower", CONTRASTIVE)):
        with refused(Exists, "trained/", "another recipe or on other data"):
            run(root, settings, name)
    with refused(Exists, "'vit2'", "models.yaml"):
        run(root, CONTRASTIVE, "vit2")
    assert artefacts(root) == before


def test_without_tensorboard_the_pip_command_is_told(root, monkeypatch):
    monkeypatch.setattr(extras, "_installed", lambda name: name != "tensorboard")
    with refused(Unavailable, "tensorboard", " -m pip install tensorboard=="):
        run(root, CONTRASTIVE)


def test_a_loss_that_is_no_number_is_told(root):
    with refused(UserError, "the loss of step ", "learning_rate"):
        run(root, {**CONTRASTIVE, "learning_rate": 1e30, "clip": None, "warmup": 0.0})


def test_training_stops_when_validation_no_longer_gets_better(root):
    one = run(root, {**CONTRASTIVE, "learning_rate": 1e-12, "epochs": 9, "patience": 2})
    assert [entry["epoch"] for entry in one.record["history"]] == [1, 2, 3]


# ---- written back in the family's own layout


def family(name: str, folder: Path) -> ModelEntry:
    """A tiny checkpoint of a family and its entry."""
    if name == "timm":
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(0)
        folder.mkdir()
        save_file(timm.create_model("mobilenetv2_050").state_dict(), folder / "m.safetensors")
        facts = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "preprocess": "tiny"}
        return ModelEntry.parse(
            {"family": "timm", "architecture": "mobilenetv2_050", "weights": f"{folder.name}/m.safetensors", **facts},
            "timm",
        )
    from ..models.test_transformers import checkpoint

    checkpoint(folder, name)
    return ModelEntry(family="transformers", weights=folder.name, preprocess="tiny")


@pytest.mark.parametrize(
    "kind",
    ["timm", "clip", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("siglip", "siglip2", "align", "flava"))],
)
def test_what_is_written_loads_as_any_checkpoint_of_its_family(kind, tmp_path):
    entry = family(kind, tmp_path / "before")
    model = models.load("m", entry, tmp_path, "image", CPU, "fp32")
    encoder = model.trainable()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    written = models.export("m", entry, tmp_path, model, tmp_path / "after")
    again = ModelEntry.parse({**written, "preprocess": "tiny"}, "after")
    towers = [models.load("m", one, tmp_path, "image", CPU, "fp32") for one in (again, entry)]
    found, before = (one.encode_image(pixels) for one in towers)
    torch.testing.assert_close(found, encoder(pixels).detach(), atol=1e-6, rtol=0)
    assert not torch.allclose(found, before, atol=1e-4)
    if kind != "timm":
        texts = [models.load("m", one, tmp_path, "text", CPU, "fp32").encode_text(["a cat"]) for one in (entry, again)]
        assert torch.equal(*texts)


def test_several_vectors_of_an_image_are_not_trained(tmp_path):
    entry = family("blip-2", tmp_path / "before")
    with refused(Mismatch, "several feature vectors"):
        models.load("m", entry, tmp_path, "image", CPU, "fp32").trainable()


# ---- real processes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command_line(root: Path, settings: dict) -> list[str]:
    write_yaml(
        root / "training" / "t.yaml",
        yaml.safe_load(recipe(settings).model_dump_json()) | {"method": {"finetune": settings}},
    )
    return ["-m", "pipeline", "train", "--recipe", "training/t.yaml", "--dtype", "fp32"]


@pytest.mark.slow
def test_kills_change_no_byte(root, monkeypatch):
    """kill -9 at growing numbers of checkpoints; the last run goes on and ends in the same files.

    All with as many threads: another number adds up sums in another order.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {**EVERYTHING, "epochs": 6, "patience": None}
    arguments = command_line(root, settings)
    done = pipeline(root, *arguments[2:])
    assert done.returncode == 0, done.stderr
    whole = artefacts(root)
    shutil.rmtree(root / "trained")
    last, kills = root / "trained" / "t" / "checkpoint" / "last.pt", 0
    for checkpoints in (1, 4, 2, 5):
        running = subprocess.Popen([sys.executable, *arguments], cwd=root, env=environment(), stdout=subprocess.DEVNULL)
        stamp, seen = last.stat().st_mtime_ns if last.exists() else 0, 0
        while seen < checkpoints and running.poll() is None:
            now = last.stat().st_mtime_ns if last.exists() else 0
            seen, stamp = seen + (now != stamp), now
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        kills += running.wait() == -signal.SIGKILL
    assert kills >= 3
    done = pipeline(root, *arguments[2:])
    assert done.returncode == 0 and "going on after step" in done.stdout, done.stderr
    assert artefacts(root) == whole


@pytest.mark.slow
def test_two_processes_train_one_tower(root):
    """Each computes a part of every batch: the same training but for the last bits of sums."""
    settings = {**CONTRASTIVE, "augment": "none", "epochs": 2, "alphas": [1.0]}
    arguments = command_line(root, settings)
    launched = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *arguments]
    done = subprocess.run(launched, cwd=root, env=environment(), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1, "one process speaks"
    both = tower(root, "t").module.state_dict()
    run(root, settings, "alone")
    alone, before = tower(root, "alone").module.state_dict(), tower(root, "vit").module.state_dict()
    assert distance(alone, both) < 0.005 * distance(alone, before)

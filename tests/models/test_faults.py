"""Checkpoints that are damaged, hostile, of another architecture, or not the ones they were a moment ago."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import models
from pipeline.__main__ import main
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.core.errors import Changed, Damaged, NotFound, UserError
from pipeline.models import hub
from pipeline.models._weights import open_weights
from pipeline.recipes import ModelEntry

from .. import damage
from ..conftest import IMAGES, fresh, prompt_set, refused, write_yaml
from ..tiny import tokenizer_files
from .conftest import COMMIT, in_cache

CPU = torch.device("cpu")
WEIGHTS = "open_clip_model.safetensors"
KEYS = ("visual.ln_post.weight", "visual.conv1.weight", "ln_final.bias", "text_projection")
ANY_FILE = [kind for kind in damage.BYTES if kind not in ("bit of a tensor", "pickle in an archive")]


pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, before it refuses


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(damage.TRAP))


@pytest.fixture
def mine(project_root, checkpoints) -> Path:
    """The folder of a checkpoint `mine` of the project, free to be changed."""
    folder = project_root / "mine"
    shutil.copytree(checkpoints / "vit", folder)
    write_yaml(
        project_root / "models.local.yaml", {"mine": {"family": "open_clip", "weights": "mine", "preprocess": "tiny"}}
    )
    return folder


def changed(folder: Path, seed: int = 1) -> bytes:
    """The content of another checkpoint of the same architecture."""
    state = load_file(folder / WEIGHTS)
    state["visual.proj"] = torch.randn(state["visual.proj"].shape, generator=torch.Generator().manual_seed(seed))
    save_file(state, folder / "other")
    content = (folder / "other").read_bytes()
    (folder / "other").unlink()
    return content


def swap(file: Path, content: bytes, in_place: bool = False) -> None:
    if in_place:
        file.write_bytes(content)
    else:
        file.with_suffix(".new").write_bytes(content)
        os.replace(file.with_suffix(".new"), file)


def saved(root: Path) -> list[Path]:
    return [path for stage in ("tiny/features", "text") for path in (root / "cache" / stage).rglob("*.pt")]


class TestSwapped:
    def run(self, root: Path) -> tuple[int, int, torch.Tensor]:
        task = fresh(root)
        features, images = chain_features.of_member(task, task.project.member("mine@tiny"))
        _, prompts = chain_text.of_prompts(task, "mine", task.prompts)
        return images, prompts, features.rows("features", 0, IMAGES).clone()

    def test_between_two_runs(self, project_root, mine):
        old, new = (mine / WEIGHTS).read_bytes(), changed(mine)
        images, prompts, first = self.run(project_root)
        assert (images, prompts) == (IMAGES, 12)
        swap(mine / WEIGHTS, new)
        images, prompts, second = self.run(project_root)
        assert (images, prompts) == (IMAGES, 12)
        assert not torch.equal(first, second)
        swap(mine / WEIGHTS, old)
        images, prompts, third = self.run(project_root)
        assert (images, prompts) == (0, 0), "the old features are found again"
        assert torch.equal(first, third)

    @pytest.mark.parametrize("tower", ["image", "text"])
    @pytest.mark.parametrize("when", ["before it is read", "while it is read", "in place", "gone"])
    def test_during_a_run(self, project_root, mine, monkeypatch, tower, when):
        """What another file gave is never kept under the name of the first."""
        load, new, task = models.load, changed(mine), fresh(project_root)

        def loading(name, entry, root, *rest):
            if when == "before it is read":
                swap(mine / WEIGHTS, new)
            model = load(name, entry, root, *rest)
            encode = getattr(model, f"encode_{tower}")

            def encoding(inputs):
                if when == "gone":
                    (mine / WEIGHTS).unlink(missing_ok=True)
                    mine.rename(mine.with_name("elsewhere")) if mine.exists() else None
                elif when != "before it is read":
                    swap(mine / WEIGHTS, new, in_place=when == "in place")
                return encode(inputs)

            setattr(model, f"encode_{tower}", encoding)
            return model

        monkeypatch.setattr(models, "load", loading)
        kind = NotFound if when == "gone" else Changed
        with refused(kind, "mine"):
            chain_features.of_member(
                task, task.project.member("mine@tiny")
            ) if tower == "image" else chain_text.of_prompts(task, "mine", prompt_set(("a", "b")))
        assert saved(project_root) == []
        monkeypatch.undo()
        if when != "gone":
            assert self.run(project_root)[:2] == (IMAGES, 12)


class TestNotFinite:
    @pytest.mark.faults
    @pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("key", KEYS)
    def test_every_kind_of_weight(self, project_root, mine, monkeypatch, capsys, dtype, value, key):
        self.test_weights_are_named_and_nothing_is_kept(project_root, mine, monkeypatch, capsys, dtype, value, key)

    @pytest.mark.parametrize("dtype, value, key", [("fp32", float("inf"), KEYS[0]), ("fp16", float("nan"), KEYS[3])])
    def test_weights_are_named_and_nothing_is_kept(self, project_root, mine, monkeypatch, capsys, dtype, value, key):
        monkeypatch.chdir(project_root)
        state = load_file(mine / WEIGHTS)
        state[key].view(-1)[0] = value
        save_file(state, mine / WEIGHTS)
        assert main(["infer", "--competition", "tiny", "--model", "mine", "--dtype", dtype]) == 1
        message = capsys.readouterr().err.strip()
        assert message.startswith("error: mine") and "are not finite" in message and "\n" not in message
        assert f"weight {key} is not finite" in message or (dtype != "fp32" and value == float("inf"))
        assert not list(project_root.glob("cache/tiny/probs/*/*/*.pt"))
        assert saved(project_root) == [] if "visual" in key else not list((project_root / "cache/text").rglob("*.pt"))

    def test_the_logit_scale(self, project_root, mine):
        state = load_file(mine / WEIGHTS)
        state["logit_scale"] = torch.tensor(float("nan"))
        save_file(state, mine / WEIGHTS)
        with refused(Damaged, "mine: logit_scale"):
            chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("mine@tiny"))
        assert not list((project_root / "cache" / "text").rglob("*.pt"))


class TestDamaged:
    """A damaged checkpoint is refused by name when it is read, or read as it is; nothing else can happen."""

    def tiny_files(self, folder: Path) -> list[Path]:
        generator = torch.Generator().manual_seed(0)
        state = {f"layer.{n}.weight": torch.randn(3, 4, generator=generator) for n in range(3)}
        save_file(state, folder / "a.safetensors")
        torch.save(state, folder / "a.bin")
        torch.save(state, folder / "old.bin", _use_new_zipfile_serialization=False)
        index = {"weight_map": dict.fromkeys(state, "a.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return sorted(path for path in folder.iterdir() if path.is_file())

    def read(self, path: Path) -> bool:
        try:
            state = dict(open_weights(path))
        except UserError as error:
            assert str(path.parent) in str(error), "the file, or the shard that an index names"
            assert "\n" not in str(error)
            return False
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        return True

    def test_half_downloaded(self, tmp_path):
        for path in self.tiny_files(tmp_path):
            content = path.read_bytes()
            assert self.read(path)
            for length in range(0, len(content), 41):
                path.write_bytes(content[:length])
                assert not self.read(path), (path, length)
            path.write_bytes(content)

    def fuzz(self, tmp_path, count: int, seed: int) -> None:
        rng, files = random.Random(seed), self.tiny_files(tmp_path)
        contents = [path.read_bytes() for path in files] + [pickle.dumps(damage.Trap())]
        for _ in range(count):
            for path, content in zip(files, contents, strict=False):
                path.write_bytes(damage.mutated(content, contents, rng))
                self.read(path)
                path.write_bytes(content)

    def test_random_damage(self, tmp_path):
        self.fuzz(tmp_path, 20, 0)

    @pytest.mark.faults
    @pytest.mark.parametrize("seed", range(1, 5))
    def test_more_random_damage(self, tmp_path, seed):
        self.fuzz(tmp_path, 625, seed)

    @pytest.mark.faults
    def test_every_bit_of_a_safetensors_header(self, tmp_path):
        path = next(path for path in self.tiny_files(tmp_path) if path.name == "a.safetensors")
        content = path.read_bytes()
        for bit in range(8 * (8 + int.from_bytes(content[:8], "little"))):
            path.write_bytes(damage.flip(content, bit))
            self.read(path)

    @pytest.mark.parametrize("kind", ANY_FILE)
    def test_the_command_says_which_file(self, project_root, mine, monkeypatch, capsys, kind):
        monkeypatch.chdir(project_root)
        (mine / WEIGHTS).write_bytes(damage.BYTES[kind]((mine / WEIGHTS).read_bytes()))
        assert main(["infer", "--competition", "tiny", "--model", "mine"]) == 1
        message = capsys.readouterr().err.strip()
        assert message.startswith("error: models.local.yaml: mine: ") and WEIGHTS in message and "\n" not in message
        assert saved(project_root) == []

    def test_a_hostile_torch_file(self, project_root, mine, monkeypatch, capsys):
        monkeypatch.chdir(project_root)
        torch.save(load_file(mine / WEIGHTS), mine / "whole.bin")
        whole = (mine / "whole.bin").read_bytes()
        (mine / WEIGHTS).unlink()
        for hostile in (
            pickle.dumps(damage.Trap()),
            damage.zip_with(whole, "data.pkl", pickle.dumps(damage.Trap())),
            pickle.dumps({"visual.proj": damage.Trap()}, protocol=2),
        ):
            (mine / "open_clip_pytorch_model.bin").write_bytes(hostile)
            assert main(["infer", "--competition", "tiny", "--model", "mine"]) == 1
            message = capsys.readouterr().err.strip()
            assert "open_clip_pytorch_model.bin" in message and "\n" not in message

    def test_another_architecture(self, project_root, mine, checkpoints, monkeypatch, capsys):
        monkeypatch.chdir(project_root)
        shutil.copy(checkpoints / "vit2" / WEIGHTS, mine / WEIGHTS)
        assert main(["infer", "--competition", "tiny", "--model", "mine"]) == 1
        assert "mine: the checkpoint is of another architecture: " in capsys.readouterr().err
        assert saved(project_root) == []


class TestHubMoved:
    """A branch of a hub repository that is at another commit than the features in the cache were made from."""

    REPO = "some/clip"

    @pytest.fixture
    def commits(self, project_root, cache, monkeypatch, tmp_path) -> list[str]:
        """Two commits of a repository in the hub's local cache; the branch is at the first."""
        from ..models.test_transformers import checkpoint

        commits = [COMMIT, COMMIT[::-1]]
        for seed, commit in enumerate(commits):
            torch.manual_seed(seed)
            checkpoint(tmp_path / commit, "clip")
            state = load_file(tmp_path / commit / "model.safetensors")
            state["visual_projection.weight"] *= torch.randn(state["visual_projection.weight"].shape)
            save_file(state, tmp_path / commit / "model.safetensors", {"format": "pt"})
            tokenizer_files(tmp_path / commit)
            for file in (tmp_path / commit).iterdir():
                in_cache(cache, self.REPO, file.name, file.read_bytes(), commit)
        self.branch = cache / "models--some--clip" / "refs" / "main"
        self.branch.write_text(commits[0])
        self.write_entry(project_root)
        hub._say_moved.cache_clear()
        return commits

    def write_entry(self, root: Path, **more) -> None:
        entry = {"family": "transformers", "hub": self.REPO, "preprocess": "tiny", "allow": ["resize_mode"], **more}
        write_yaml(root / "models.local.yaml", {"hubbed": entry})

    def encoded(self, root: Path, **settings) -> tuple[int, int]:
        task = fresh(root, **settings)
        prompts = ("a photo of a cat", "dog")
        return chain_features.of_member(task, task.project.member("hubbed@tiny"))[1], chain_text.of_prompts(
            task, "hubbed", prompt_set(prompts)
        )[1]

    def test_its_features_are_computed_again_and_found_when_it_moves_back(self, project_root, commits, capsys):
        assert self.encoded(project_root) == (IMAGES, 2)
        assert self.encoded(project_root) == (0, 0)
        capsys.readouterr()
        self.branch.write_text(commits[1])
        assert self.encoded(project_root) == (IMAGES, 2)
        said = capsys.readouterr().out
        assert said.count(f"hub        some/clip@main moved from {commits[0][:12]} to {commits[1][:12]}") == 1
        assert f"'revision: {commits[0]}' keeps the old ones" in said
        assert self.encoded(project_root) == (0, 0)
        self.branch.write_text(commits[0])
        assert self.encoded(project_root) == (0, 0)

    def test_a_pinned_commit_does_not_move(self, project_root, commits, capsys):
        self.write_entry(project_root, revision=commits[0])
        assert self.encoded(project_root) == (IMAGES, 2)
        self.branch.write_text(commits[1])
        assert self.encoded(project_root) == (0, 0)
        assert "moved" not in capsys.readouterr().out

    def test_features_outlive_the_weights(self, project_root, commits):
        assert self.encoded(project_root) == (IMAGES, 2)
        shutil.rmtree(self.branch.parents[1])
        assert self.encoded(project_root) == (0, 0)

    def test_a_download_that_brings_another_commit(self, project_root, commits, monkeypatch):
        """The weights were deleted, the branch has moved, new prompts need them: nothing is mixed."""
        assert self.encoded(project_root) == (IMAGES, 2)
        self.branch.unlink()
        load, task = models.load, fresh(project_root)

        def downloading(*arguments):
            self.branch.write_text(commits[1])
            return load(*arguments)

        monkeypatch.setattr(models, "load", downloading)
        with refused(Changed, "hubbed"):
            chain_text.of_prompts(task, "hubbed", prompt_set(("a photo of a cat", "house")))
        assert self.encoded(project_root) == (IMAGES, 2)

    def test_the_first_download_changes_nothing(self, project_root, commits):
        self.branch.unlink()
        entry = ModelEntry.parse({"family": "transformers", "hub": self.REPO, "preprocess": "tiny"}, "m")
        before = models.identity("m", entry, project_root)
        self.branch.write_text(commits[1])
        assert models.identity("m", entry, project_root) == before

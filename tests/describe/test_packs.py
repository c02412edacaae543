"""The packs that come with the project."""

from pipeline.describe.sieve import is_named
from pipeline.recipes import Project
from pipeline.recipes.prompts import load_prompts
from tools import waffle

from ..conftest import ROOT


def test_descriptions_of_scenes_name_their_class():
    class_names = Project(ROOT).class_names("scene")
    found = load_prompts(ROOT / "prompts" / "scene-described", class_names)
    assert [found.prompt_class.count(label) for label in range(6)] == [30] * 6
    for prompt, label in zip(found.prompts, found.prompt_class, strict=True):
        assert is_named(prompt, class_names[label]) and prompt.endswith("."), prompt


def test_the_control_is_made_by_its_seed():
    assert (ROOT / "prompts" / "waffle" / "_shared.yaml").read_text() == waffle.written(0)
    for seed in range(20):
        assert len(set(waffle.templates(seed))) == 30 and waffle.templates(seed) != waffle.templates(seed + 1)

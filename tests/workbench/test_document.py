"""YAML files that are edited where they stand."""

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.workbench.document import Document, plain, written

from ..conftest import ROOT

FILES = [path for folder in ("prompts", "ensembles", "competitions") for path in (ROOT / folder).rglob("*.yaml")]


def test_what_is_not_edited_stays_as_it_is():
    for path in FILES:
        text = path.read_text()
        assert Document(text, path.name).text() == text, path


COMMENTED = """\
# Templates of every class.
templates:
  - "{}"
  # those of CLIP
  - a photo of a {}   # the best

  - 'a {} in snow'
weights: {a: 1, b: 2}  # found by hand
"""


@pytest.mark.parametrize("place", range(3))
def test_comments_survive_what_is_taken_out(place):
    document = Document(COMMENTED, "x.yaml")
    del document.items("templates")[place]
    text = document.text()
    for line in ("# Templates of every class.", "  # those of CLIP", "# found by hand"):
        assert line in text
    kept = [t for n, t in enumerate(["{}", "a photo of a {}", "a {} in snow"]) if n != place]
    assert yaml.safe_load(text) == {"templates": kept, "weights": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    "text", ["yes", "no", "12:30", "1_000", "null", "a: b", "- x", "#x", "{}", "'", "é", "0x1f", " a", "~"]
)
def test_text_stays_text(text):
    document = Document("prompts:\n- x\n", "x.yaml")
    document.items("prompts").append(written(text))
    assert yaml.safe_load(document.text()) == {"prompts": ["x", text]}
    assert plain(Document(document.text(), "x.yaml").content) == {"prompts": ["x", text]}


def test_line_ends_stay():
    document = Document("a: 1\r\nb: 2\r\n", "x.yaml")
    document.content["b"] = 3
    assert document.text() == "a: 1\r\nb: 3\r\n"


def test_a_file_of_comments_keeps_them():
    document = Document("# mine\n", "x.yaml")
    document.content["a"] = 1
    assert document.text() == "# mine\na: 1\n"


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "a: 1\na: 2\n"])
def test_what_cannot_be_edited_is_told(text):
    with pytest.raises(UserError, match="x.yaml"):
        Document(text, "x.yaml")

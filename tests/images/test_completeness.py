"""What is left out of a folder: nothing that would be an image, and nothing unsaid."""

import os

import pytest

from pipeline.core.errors import Mismatch, NotFound
from pipeline.images.completeness import gaps, suspects
from pipeline.images.listing import list_images

from ..conftest import fresh, pipeline, refused, write_images, write_yaml


def listed(folder):
    return list_images(str(folder), "here")


IN_PLACE_OF_5 = {
    "dangling link": lambda folder: os.symlink("nowhere", folder / "5.jpg"),
    "folder": lambda folder: (folder / "5.jpg").mkdir(),
    "pipe": lambda folder: os.mkfifo(folder / "5.jpg"),
    "half a download": lambda folder: (folder / "5.jpg.part").write_bytes(b"x"),
    "no ending": lambda folder: (folder / "5").write_bytes(b"x"),
    "hidden": lambda folder: (folder / ".5.jpg").write_bytes(b"x"),
}


@pytest.mark.parametrize("kind", IN_PLACE_OF_5)
def test_what_would_be_an_image_is_an_error_that_names_it(tmp_path, kind):
    write_images(tmp_path / "a", 12)
    (tmp_path / "a" / "5.jpg").unlink()
    IN_PLACE_OF_5[kind](tmp_path / "a")
    ((name, what),) = suspects(listed(tmp_path / "a"))
    assert name.strip(".").startswith("5") and what


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._5.jpg", "5.jpg.part", "labels.csv", "5.json", "notes"])
def test_what_lies_beside_the_images_is_left_out_and_no_more(tmp_path, name):
    write_images(tmp_path / "a", 12)
    (tmp_path / "a" / name).write_bytes(b"x")
    found = listed(tmp_path / "a")
    assert found.left_out == (name,)
    assert not list(suspects(found))


@pytest.mark.parametrize("ending", ["jpe", "jfif", "JPG", "mpo"])
def test_other_endings_of_the_same_kinds_are_images(tmp_path, ending):
    write_images(tmp_path / "a", 12)
    (tmp_path / "a" / "5.jpg").rename(tmp_path / "a" / f"5.{ending}")
    found = listed(tmp_path / "a")
    assert found.ids[5] == f"5.{ending}" and not found.left_out


def test_gaps_are_noticed_in_what_counts_on_alone(tmp_path):
    write_images(tmp_path / "a", 40)
    assert gaps(listed(tmp_path / "a")) == []
    (tmp_path / "a" / "7.jpg").unlink()
    (tmp_path / "a" / "30.jpg").unlink()
    assert gaps(listed(tmp_path / "a")) == [7, 30]
    for number in range(40):
        file = tmp_path / "a" / f"{number}.jpg"
        if file.exists():
            file.rename(tmp_path / "a" / f"{number * number + 100}.jpg")
    assert gaps(listed(tmp_path / "a")) == [], "numbers that do not count on have no gaps"


def test_a_gap_is_an_error_where_ids_are_positions_unless_the_count_is_given(project_root):
    (project_root / "data" / "tiny" / "5.jpg").unlink()
    with refused(NotFound, "data/tiny", "first 5", "'count: 22' in competitions/tiny.yaml"):
        _ = fresh(project_root).images
    file = project_root / "competitions" / "tiny.yaml"
    recipe = {"images": "data/tiny", "classes": ["Cats", "Dogs", "Big Birds"], "ensemble": "both"}
    write_yaml(file, recipe | {"columns": {"i": "position", "label": "label"}, "count": 22})
    assert len(fresh(project_root).images.ids) == 22
    write_yaml(file, recipe | {"count": 23})
    with refused(Mismatch, "competitions/tiny.yaml: count: 23", "22 images"):
        _ = fresh(project_root).images


def test_a_gap_is_told_where_ids_are_names(project_root, capsys):
    (project_root / "data" / "tiny" / "5.jpg").unlink()
    recipe = {"images": "data/tiny", "classes": ["Cats", "Dogs", "Big Birds"], "ensemble": "both"}
    write_yaml(project_root / "competitions" / "tiny.yaml", recipe)
    assert len(fresh(project_root).images.ids) == 22
    assert "1 numbers are missing, first 5" in capsys.readouterr().err


def test_a_submission_lists_what_it_leaves_out(project_root):
    write_images(project_root / "data" / "tiny" / "more", 3)
    for name in ("a.txt", "b.txt", "c.txt"):
        (project_root / "data" / "tiny" / name).touch()
    result = pipeline(project_root, "submit", "--competition", "tiny")
    assert result.returncode == 0, result.stderr
    assert "4 other files are left out (.DS_Store, a.txt, b.txt, ...): " in " ".join(result.stdout.split())
    assert (project_root / "reports" / "tiny" / "left-out.csv").read_text() == "file\n.DS_Store\na.txt\nb.txt\nc.txt\n"
    assert (
        "3 more images are in sub-folders of data/tiny and are not used; for all give data/tiny/**/*" in result.stderr
    )

"""Self-contained pages: what is data stays data, and nothing is fetched."""

import re
import sys
from types import SimpleNamespace

import numpy as np

from pipeline.core import extras
from pipeline.core.errors import Unavailable
from pipeline.report import page, training
from pipeline.report.page import charts

from ..conftest import refused, write_images

EVIL = "<script>alert('x')</script> & \"$\\frac\""


def test_names_are_data(tmp_path):
    tile = page.Tile("data:,", EVIL, EVIL, EVIL)
    sections = [
        page.Section(
            EVIL,
            EVIL,
            [
                page.Table((EVIL,), [(EVIL,)]),
                page.Grid([tile]),
                page.Details(EVIL, EVIL),
                page.Matrix([EVIL], [EVIL], [[EVIL]], [[1.0]]),
                page.Figure(charts.scatter(np.eye(2), np.arange(2), np.eye(2), [EVIL, "$x_{1}$"])),
            ],
        )
    ]
    page.write(tmp_path / "x.html", EVIL, EVIL, [(EVIL, EVIL, EVIL)], sections, [EVIL])
    text = (tmp_path / "x.html").read_text()
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 12
    assert "$x_{1}$" in text, "a class name is no formula"


def test_a_page_names_no_address(tmp_path):
    write_images(tmp_path, 1)
    curve = page.Figure(charts.elbow({"a": [0.5, 0.8, 1.0]}))
    tile = page.Tile(page.thumbnail(tmp_path / "0.jpg"), "x")
    page.write(tmp_path / "x.html", "x", "y", [], [page.Section("s", "", [curve, page.Grid([tile])])])
    text = (tmp_path / "x.html").read_text()
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text


def test_charts_have_the_pages_colours_and_their_own_ids():
    svgs = [
        charts.elbow({"a": [0.5, 1.0], "b": [0.4, 1.0]}),
        charts.reliability([0.2, 0.9], [0.1, 0.8], [3, 9]),
        charts.scatter(np.random.default_rng(0).random((12, 2)), np.arange(12), np.zeros((0, 2)), ["x"] * 12),
        charts.histogram([1, 2, 2, 900], "x", "one"),
    ]
    for svg in svgs:
        assert "var(--soft)" in svg or "var(--c0)" in svg
        assert not re.search(r"#0[ac]\w{4}", svg), "a stand-in colour is left"
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
        assert used <= set(re.findall(r' id="([^"]+)"', svg))
    ids = [name for svg in svgs for name in set(re.findall(r' id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids)), "two charts of one page share an id"
    assert "hsl(" in svgs[2], "the eleventh class has a colour too"


def test_thumbnails_are_small_and_a_damaged_image_is_a_grey_tile(tmp_path):
    write_images(tmp_path, 1)
    (tmp_path / "bad.jpg").write_bytes(b"x")
    for name in ("0.jpg", "bad.jpg", "none.jpg"):
        assert page.thumbnail(tmp_path / name).startswith("data:image/jpeg;base64,")
    assert page.thumbnail(tmp_path / "bad.jpg") == page.thumbnail(tmp_path / "none.jpg")


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    extras.need("report", "make report")
    monkeypatch.setattr(extras, "_installed", lambda name: name not in ("scikit-learn", "openTSNE"))
    pip = (f"{sys.executable} -m pip install scikit-learn==", " openTSNE==")
    with refused(Unavailable, "scikit-learn, openTSNE", *pip):
        extras.need("report", "make report")


def test_of_a_search_the_chosen_row_is_the_first_and_marked():
    history = [{"C": 0.1 * n, "macro_f1": 0.5, "ece": 0.1} for n in range(9)]
    trained = SimpleNamespace(record={"history": history, "setting": {"C": history[6]["C"]}})
    (block,) = training._choice(trained).blocks
    assert list(block.columns) == ["choice", "C", "macro F1", "ECE"]
    assert [row[0] for row in block.rows] == ["chosen"] + [""] * 8 and block.rows[0][1].value == history[6]["C"]

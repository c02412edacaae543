"""make analyse: what is planted in a folder is found."""

import csv
import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.report import analyse
from pipeline.report.analyse import measure as m
from pipeline.report.analyse import sections

from ..browser import check
from ..conftest import ROOT, fresh, pipeline
from ..report.test_report import solve


def detailed(side: int, seed: int = 0) -> Image.Image:
    """Noise with as much power as photographs have at each frequency, up to the last pixel."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = 1
    picture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency, s=(side, side))
    return Image.fromarray(np.clip(128 + 60 * picture / picture.std(), 0, 255).astype(np.uint8)).convert("RGB")


def enlarged(image: Image.Image, small: int, side: int) -> Image.Image:
    """An image reduced to `small` pixels, enlarged to `side` and saved as JPEG."""
    buffer = io.BytesIO()
    image.resize((small, small), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=92
    )
    return Image.open(buffer)


def resolution(image: Image.Image) -> int:
    return m.effective_resolution(np.asarray(image.convert("L"), dtype=np.float32))


class TestEffectiveResolution:
    @pytest.mark.parametrize("small", [16, 32, 64, 112])
    def test_enlarged_images_are_seen_through(self, small):
        found = [resolution(enlarged(detailed(224, seed), small, 224)) for seed in range(5)]
        assert np.median(found) == pytest.approx(small, rel=0.2)

    def test_a_sharp_one_keeps_all(self):
        assert resolution(detailed(224)) > 200
        assert resolution(detailed(1500)) > 1300  # of its middle
        assert resolution(detailed(300).crop((0, 0, 100, 300))) > 90

    def test_flat_ones_have_none(self):
        assert resolution(Image.new("RGB", (50, 40), "red")) == 1
        assert resolution(Image.new("RGB", (1, 1))) == 1


class TestDuplicates:
    @pytest.fixture
    def folder(self, tmp_path):
        for seed in range(12):
            detailed(96, seed).save(tmp_path / f"{seed}.png")
        shutil.copy(tmp_path / "3.png", tmp_path / "same.png")
        Image.open(tmp_path / "5.png").save(tmp_path / "worse.jpg", quality=60)
        Image.open(tmp_path / "7.png").resize((70, 70)).save(tmp_path / "smaller.png")
        ImageEnhance.Brightness(Image.open(tmp_path / "7.png")).enhance(1.05).save(tmp_path / "brighter.png")
        Image.open(tmp_path / "9.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png")
        return tmp_path

    def groups(self, folder, find) -> list[set[str]]:
        names = sorted(path.name for path in folder.iterdir())
        measured = [m.measure(name, str(folder / name)) for name in names]
        return sorted(({names[position] for position in group} for group in find(measured)), key=sorted)

    def test_planted_ones_are_found_and_no_others(self, folder):
        assert self.groups(folder, m.exact_duplicates) == [{"3.png", "same.png"}]
        near = [{"5.png", "worse.jpg"}, {"7.png", "brighter.png", "smaller.png"}]
        assert self.groups(folder, m.near_duplicates) == near

    def test_more_images_than_are_compared_at_a_time(self, folder, monkeypatch):
        whole = self.groups(folder, m.near_duplicates)
        monkeypatch.setattr(m, "CHUNK", 3)
        assert self.groups(folder, m.near_duplicates) == whole

    def test_none_and_one(self, folder):
        assert m.near_duplicates([]) == []
        assert m.near_duplicates([m.measure("3.png", str(folder / "3.png"))]) == []


def planted(root) -> None:
    """The tiny competition's folder with a copy, a damaged file, an odd mode."""
    folder = root / "data" / "tiny"
    shutil.copy(folder / "4.jpg", folder / "7.jpg")
    (folder / "5.jpg").write_bytes((folder / "5.jpg").read_bytes()[:200])
    Image.open(folder / "6.jpg").convert("L").save(folder / "6.jpg")


def test_the_table_and_the_summary(project_root, capsys):
    planted(project_root)
    solve(project_root)
    target = analyse.write(fresh(project_root))
    captured = capsys.readouterr()
    assert target == project_root / "reports" / "tiny" / "images.html"
    assert "23 images, 1 damaged, 1 other files ignored" in captured.out
    assert "15 not square" in captured.out or "14 not square" in captured.out
    assert "1 groups of identical files" in captured.out
    assert "warning: 5.jpg: " in captured.err
    with open(target.with_suffix(".csv"), newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"{n}.jpg" for n in range(23)]
    assert rows["7.jpg"]["duplicate_of"] == "4.jpg"
    assert rows["7.jpg"]["content"] == rows["4.jpg"]["content"]
    assert rows["5.jpg"]["problem"]
    assert (rows["6.jpg"]["mode"], rows["4.jpg"]["mode"], rows["4.jpg"]["format"]) == ("L", "RGB", "JPEG")
    assert (rows["4.jpg"]["width"], rows["4.jpg"]["height"], rows["4.jpg"]["class"]) == ("41", "40", "Dogs")
    assert 0 < float(rows["4.jpg"]["brightness"]) < 255
    assert "5.jpg" in target.read_text()


def test_a_group_that_contradicts_itself_is_told(project_root):
    planted(project_root)
    solve(project_root)  # 4.jpg and its copy 7.jpg are both 'Dogs'; 9.jpg is a 'Cats'
    shutil.copy(project_root / "data" / "tiny" / "4.jpg", project_root / "data" / "tiny" / "9.jpg")
    target = analyse.write(fresh(project_root))
    assert "1 groups hold different true classes" in target.read_text()


def test_only_damaged_images(project_root):
    for path in (project_root / "data" / "tiny").glob("*.jpg"):
        path.write_bytes(b"x")
    data = pipeline(project_root, "analyse", "--competition", "tiny")
    assert data.returncode == 0, data.stderr
    assert "23 images, 23 damaged" in data.stdout


def test_sections_are_only_what_is_there():
    empty = sections.Data("x", ROOT, 0, ["a", "b"], None, [m.Measures("a.jpg", problem="odd")], [], [])
    assert [section.title for section in sections.every(empty)] == ["Damaged files"]


@pytest.mark.slow
def test_the_page_in_a_browser(project_root):
    planted(project_root)
    solve(project_root)
    check(analyse.write(fresh(project_root)))

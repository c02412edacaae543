"""Readers on small trees in exactly the published layouts, and what a data set must not be."""

import csv
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.chain import features as chain_features
from pipeline.core.digests import FileDigests
from pipeline.core.errors import Damaged, Mismatch, NotFound, UserError
from pipeline.labelled import readers as datasets
from pipeline.labelled.readers import Samples, cifar, cleaned
from pipeline.recipes import Dataset, Project

from ..conftest import ROOT, refused


def picture(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour, 100, 50)).save(path)
    return path


def rows(path: Path, reader, **recipe):
    return datasets.read(Dataset.parse({"reader": reader, "path": ".", "prompts": "x", **recipe}, "d.yaml"), path, "d")


def names(path: Path, reader, **recipe) -> list[str]:
    content = Dataset.parse({"reader": reader, "path": ".", "prompts": "x", **recipe}, "d.yaml")
    return list(datasets.class_names(content, datasets.read(content, path, "d"), "d").values())


def table(path: Path, reader, **recipe) -> list[tuple[str, str, str]]:
    """(id, published class, split), with every image really opened."""
    found = rows(path, reader, **recipe)
    samples = Samples(found)
    for number in range(len(found)):
        image = samples.open(number).image
        assert image.mode == "RGB"
        assert image.size in ((8, 6), (32, 32))
    return [row[:3] for row in found]


class TestFolders:
    def test_splits_of_fruits_360(self, tmp_path):
        for name in (
            "Training/Apple Braeburn/10_100.jpg",
            "Training/Apple Braeburn/2_100.jpg",
            "Training/Kiwi/0_100.jpg",
            "Test/Kiwi/3_100.jpg",
            "test-multiple_fruits/apple.jpg",
        ):
            picture(tmp_path / name)
        (tmp_path / "LICENSE").write_text("x")
        assert table(tmp_path, "folders") == [
            ("Test/Kiwi/3_100.jpg", "Kiwi", "test"),
            ("Training/Apple Braeburn/2_100.jpg", "Apple Braeburn", "train"),
            ("Training/Apple Braeburn/10_100.jpg", "Apple Braeburn", "train"),
            ("Training/Kiwi/0_100.jpg", "Kiwi", "train"),
        ]

    def test_birds_in_capitals_with_a_folder_to_ignore(self, tmp_path):
        for split in ("train", "valid", "test", "consolidated"):
            for name in ("ABBOTTS BABBLER", "AMERICAN KESTREL"):
                picture(tmp_path / split / name / "001.jpg")
        reader = {"folders": {"ignore": ["consolidated"]}}
        assert sorted({split for _, _, split in table(tmp_path, reader)}) == ["test", "train", "val"]
        assert names(tmp_path, reader) == ["Abbotts Babbler", "American Kestrel"]

    def test_no_split_and_junk_of_a_file_server(self, tmp_path):
        picture(tmp_path / "homer_simpson" / "pic_0001.jpg")
        picture(tmp_path / "ned_flanders" / "pic_0001.jpg")
        picture(tmp_path / "@eaDir" / "pic.jpg")
        picture(tmp_path / "homer_simpson" / "@eaDir" / "pic_0001.jpg" / "SYNOPHOTO_THUMB_M.jpg")
        picture(tmp_path / "__MACOSX" / "ned_flanders" / "._pic_0001.jpg")
        (tmp_path / "homer_simpson" / ".DS_Store").write_bytes(b"x")
        (tmp_path / "homer_simpson" / "Thumbs.db").write_bytes(b"x")
        assert [row[1:] for row in table(tmp_path, "folders")] == [("homer_simpson", "all"), ("ned_flanders", "all")]
        assert names(tmp_path, "folders") == ["homer simpson", "ned flanders"]

    def test_a_class_called_train_is_no_split(self, tmp_path):
        picture(tmp_path / "train" / "a.jpg")
        picture(tmp_path / "boat" / "a.jpg")
        assert [row[1:] for row in table(tmp_path, "folders")] == [("boat", "all"), ("train", "all")]


def cub(root: Path) -> Path:
    listed = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "006.Least_Auklet/Least_Auklet_0005.jpg",
        "006.Least_Auklet/Least_Auklet_0010.jpg",
    ]
    for name in listed:
        picture(root / "images" / name)
    (root / "images.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(listed, 1)))
    (root / "image_class_labels.txt").write_text("1 1\n2 6\n3 6\n")
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n6 006.Least_Auklet\n")
    (root / "train_test_split.txt").write_text("1 0\n2 1\n3 0\n")
    return root


def test_cub(tmp_path):
    assert [row[1:] for row in table(cub(tmp_path), "cub")] == [
        ("001.Black_footed_Albatross", "test"),
        ("006.Least_Auklet", "train"),
        ("006.Least_Auklet", "test"),
    ]
    assert names(tmp_path, "cub") == ["Black footed Albatross", "Least Auklet"]


@pytest.mark.parametrize(
    ("file", "text", "kind", "parts"),
    [
        ("images.txt", None, NotFound, ["no images.txt"]),
        ("image_class_labels.txt", "1 1\n2 6\n", NotFound, ["image 3", "Least_Auklet_0010", "'3'"]),
        ("train_test_split.txt", "1 0\n2 2\n3 0\n", NotFound, ["image 2", "'2'"]),
        ("classes.txt", "1\n", Damaged, ["classes.txt", "'1'"]),
    ],
)
def test_cub_that_is_not_whole(tmp_path, file, text, kind, parts):
    cub(tmp_path)
    (tmp_path / file).unlink() if text is None else (tmp_path / file).write_text(text)
    with refused(kind, *parts):
        rows(tmp_path, "cub")


def test_dtd_has_ten_splits(tmp_path):
    for fold in (1, 10):
        for number, split in enumerate(("train", "val", "test")):
            lines = [f"{name}/{name}_{(number + fold) % 3:04d}.jpg" for name in ("banded", "polka-dotted")]
            for line in lines:
                picture(tmp_path / "images" / line)
            (tmp_path / "labels").mkdir(exist_ok=True)
            (tmp_path / "labels" / f"{split}{fold}.txt").write_text("\n".join(lines) + "\n")
    first = table(tmp_path, "dtd")
    assert first[0] == ("banded/banded_0001.jpg", "banded", "train")
    assert [row[2] for row in first] == ["train", "train", "val", "val", "test", "test"]
    assert table(tmp_path, {"dtd": {"fold": 10}}) == table(tmp_path, {"dtd": 10})
    assert [row[0] for row in table(tmp_path, {"dtd": 10})] == [row[0] for row in first]  # 10 = 1 modulo 3
    with refused(NotFound, "no train2.txt"):
        rows(tmp_path, {"dtd": 2})
    with refused(UserError, "reader: dtd: fold"):
        rows(tmp_path, {"dtd": 11})


def fungi(root: Path) -> Path:
    header = "gbifID,countryCode,scientificName,Habitat,image_path,class_id\n"
    (root / "DF20-train_metadata.csv").write_text(
        header + '1,DK,"Mycena rosea (Schumach.) Gramberg","park, garden",1-2.JPG,7\n'
        "2,DK,Amanita muscaria var. formosa Pers.,forest,2-3.jpg,8\n"
    )
    (root / "DF20-val_metadata.csv").write_text(header + "3,DK,Mycena rosea (Bull.) Sacc. & Dalla Costa,x,3-4.JPG,7\n")
    (root / "FungiCLEF2022_test_metadata.csv").write_text("ObservationId,filename\n1,0-1.JPG\n")
    for name in ("1-2.jpg", "2-3.jpg", "3-4.jpg"):
        picture(root / "DF20-300px" / "DF20_300" / name)
    return root


def test_fungiclef(tmp_path):
    assert table(fungi(tmp_path), "fungiclef") == [
        ("1-2.JPG", "Mycena rosea", "train"),
        ("2-3.jpg", "Amanita muscaria", "train"),
        ("3-4.JPG", "Mycena rosea", "val"),
    ]
    (tmp_path / "DF20-300px").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "DF20_300").rename(tmp_path / "elsewhere" / "photos")
    with refused(NotFound, str(tmp_path), "'reader: {fungiclef: folder}'"):
        rows(tmp_path, "fungiclef")
    assert len(table(tmp_path, {"fungiclef": "elsewhere/photos"})) == 3
    (tmp_path / "DF20-val_metadata.csv").write_text("scientificName,image\nx,y\n")
    with refused(NotFound, "'image_path'"):
        rows(tmp_path, {"fungiclef": "elsewhere/photos"})


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 and its numpy wrote them: str are byte strings, arrays are numpy.core.multiarray."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(b"T" + struct.pack("<I", len(value)) + value)

    def save_global(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{value.__qualname__}\n".encode())

    dispatch[bytes] = save_bytes
    dispatch[str] = lambda self, value: self.save_bytes(value.encode())
    dispatch[type] = save_global
    dispatch[type(np.empty)] = save_global


def python2(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue())


def cifar_batch(count: int, seed: int, **labels) -> dict:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": data, "batch_label": "training batch", "filenames": [f"{n}.png" for n in range(count)], **labels}


class TestCifar:
    @pytest.fixture
    def cifar100(self, tmp_path) -> Path:
        python2(
            tmp_path / "meta",
            {
                "fine_label_names": ["apple", "aquarium_fish", "baby"],
                "coarse_label_names": ["fish", "fruit_and_vegetables"],
            },
        )
        python2(tmp_path / "train", cifar_batch(2, 0, fine_labels=[0, 1], coarse_labels=[1, 0]))
        python2(tmp_path / "test", cifar_batch(1, 1, fine_labels=[1], coarse_labels=[0]))
        return tmp_path

    def test_fine_and_coarse(self, cifar100):
        assert table(cifar100, "cifar") == [
            ("train/0", "apple", "train"),
            ("train/1", "aquarium_fish", "train"),
            ("test/0", "aquarium_fish", "test"),
        ]
        assert [row[1] for row in table(cifar100, {"cifar": {"level": "coarse"}})] == [
            "fruit_and_vegetables",
            "fish",
            "fish",
        ]
        assert names(cifar100, "cifar") == ["apple", "aquarium fish"]
        with refused(UserError, "level", "'fine'", "'coarse'", "'medium'"):
            rows(cifar100, {"cifar": "medium"})

    def test_pixels_are_planes_of_red_green_blue(self, cifar100):
        image = np.asarray(Samples(rows(cifar100, "cifar")).open(1).image)
        data = cifar_batch(2, 0)["data"][1]
        assert image[3, 5].tolist() == [data[3 * 32 + 5], data[1024 + 3 * 32 + 5], data[2048 + 3 * 32 + 5]]

    def test_cifar_10(self, tmp_path):
        python2(tmp_path / "batches.meta", {"label_names": ["airplane", "automobile"], "num_vis": 3072})
        for number in range(1, 6):
            python2(tmp_path / f"data_batch_{number}", cifar_batch(1, number, labels=[number % 2]))
        python2(tmp_path / "test_batch", cifar_batch(1, 9, labels=[1]))
        found = table(tmp_path, "cifar")
        assert [row[2] for row in found] == ["train"] * 5 + ["test"]
        assert found[0] == ("data_batch_1/0", "automobile", "train")

    def test_a_pickle_that_would_run_something_is_refused(self, cifar100):
        class Run:
            def __reduce__(self):
                return os.mkdir, (str(cifar100 / "owned"),)

        (cifar100 / "test").write_bytes(pickle.dumps({"data": Run()}, protocol=2))
        with refused(Damaged, "/test: ", ".mkdir"):
            rows(cifar100, "cifar")
        assert not (cifar100 / "owned").exists()

    @pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1], protocol=2)])
    def test_files_that_are_none(self, cifar100, content):
        (cifar100 / "test").write_bytes(content)
        with refused(Damaged, "/test: "):
            rows(cifar100, "cifar")

    def test_labels_that_are_no_class(self, cifar100):
        python2(cifar100 / "test", cifar_batch(1, 1, fine_labels=[3]))
        with refused(Damaged, "/test: ", "fine_labels below 3"):
            rows(cifar100, "cifar")
        (cifar100 / "test").unlink()
        with refused(NotFound, "no test;"):
            rows(cifar100, "cifar")

    def test_only_what_the_files_need_is_allowed(self):
        assert {name for _, name in cifar.ALLOWED} == {"_reconstruct", "ndarray", "dtype"}


class TestCsv:
    def write(self, folder: Path, lines: list[list[str]]) -> Path:
        with open(folder / "labels.csv", "w", newline="") as file:
            csv.writer(file).writerows(lines)
        return folder / "labels.csv"

    def test_columns_and_splits(self, tmp_path):
        for name in ("a/1.png", "2.png"):
            picture(tmp_path / name)
        file = self.write(
            tmp_path, [["path", "class", "split"], ["a/1.png", "x, y", "Validation"], ["2.png", "z", "test"]]
        )
        assert table(file, "csv") == [("a/1.png", "x, y", "val"), ("2.png", "z", "test")]
        file = self.write(tmp_path, [["file", "kind"], ["a/1.png", "x"], ["2.png", "z"]])
        assert [row[2] for row in table(file, {"csv": {"image": "file", "label": "kind"}})] == ["all", "all"]

    @pytest.mark.parametrize(
        ("lines", "kind", "parts"),
        [
            ([["path", "clas"], ["1.png", "x"]], NotFound, ["'class'", "Did you mean 'clas'"]),
            ([["path", "class"], ["1.png"]], Damaged, ["labels.csv: line 2", "2 columns"]),
            ([["path", "class"], ["1.png", " "]], Damaged, ["labels.csv: line 2", "'class'"]),
            ([["path", "class"]], NotFound, ["reader csv", "labels.csv"]),
        ],
    )
    def test_mistakes(self, tmp_path, lines, kind, parts):
        with refused(kind, *parts):
            rows(self.write(tmp_path, lines), "csv")


def encoded(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def test_parquet(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "big_dog"])})
    for split, labels in (("train", [0, 1]), ("test", [1])):
        images = [{"bytes": encoded(40 * label), "path": None} for label in labels]
        library.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(
            str(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
        )
    found = table(tmp_path / "data", "parquet")
    assert found == [
        ("test-00000-of-00001.parquet/image/0", "big_dog", "test"),
        ("train-00000-of-00001.parquet/image/0", "cat", "train"),
        ("train-00000-of-00001.parquet/image/1", "big_dog", "train"),
    ]
    assert Samples(rows(tmp_path / "data", "parquet")).open(2).image.getpixel((0, 0)) == (40, 0, 0)
    with refused(NotFound, "'lable'", "Did you mean 'label'"):
        rows(tmp_path / "data", {"parquet": {"label": "lable"}})
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with refused(Damaged, "test-00000-of-00001.parquet"):
        rows(tmp_path / "data", "parquet")


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


class TestWebdataset:
    def test_equals_the_webdataset_library(self, tmp_path):
        library = pytest.importorskip("webdataset")
        write_tar(
            tmp_path / "test" / "0.tar",
            {"a/s0.png": encoded(1), "a/s0.cls": b"1", "s1.cls": b"0\n", "s1.png": encoded(2), "s1.json": b"{}"},
        )
        write_tar(tmp_path / "train" / "0.tar", {"s0.webp": encoded(3), "s0.cls": b"0"})
        (tmp_path / "classnames.txt").write_text("cat\nbig dog\n")
        found = rows(tmp_path, "webdataset")
        assert [row[:3] for row in found] == [
            ("test/0.tar/a/s0", "big dog", "test"),
            ("test/0.tar/s1", "cat", "test"),
            ("train/0.tar/s0", "cat", "train"),
        ]
        streamed = library.WebDataset(str(tmp_path / "test" / "0.tar"), shardshuffle=False).decode("pil")
        for number, sample in enumerate(streamed):
            assert found[number].id == f"test/0.tar/{sample['__key__']}"
            assert found[number].class_name == ["cat", "big dog"][sample["cls"]]
            assert Samples(found).open(number).image.tobytes() == sample["png"].tobytes()
        assert number == 1

    def test_names_in_text_and_splits_in_file_names(self, tmp_path):
        write_tar(tmp_path / "train-000000.tar", {"0.jpg": encoded(0), "0.txt": b"cat"})
        write_tar(tmp_path / "val-000000.tar", {"0.jpg": encoded(0), "0.txt": b"dog"})
        assert [row[1:] for row in table(tmp_path, "webdataset")] == [("cat", "train"), ("dog", "val")]

    @pytest.mark.parametrize(
        ("members", "kind", "parts"),
        [
            ({"0.jpg": b"x"}, NotFound, ["0.tar: 0 ", "cls or txt", "jpg"]),
            ({"0.jpg": b"x", "0.cls": b"2"}, Mismatch, ["label 2", "classnames.txt"]),
        ],
    )
    def test_mistakes(self, tmp_path, members, kind, parts):
        write_tar(tmp_path / "0.tar", members)
        (tmp_path / "classnames.txt").write_text("cat\n")
        with refused(kind, *parts):
            rows(tmp_path, "webdataset")
        (tmp_path / "0.tar").write_bytes(b"no tar" * 200)
        with refused(Damaged, "0.tar"):
            rows(tmp_path, "webdataset")


def test_class_names_are_cleaned_and_can_be_overridden(tmp_path):
    assert [cleaned(name) for name in ("006.Least_Auklet", "aquarium_fish", "polka-dotted", "Apple Red 1", "7")] == [
        "Least Auklet",
        "aquarium fish",
        "polka-dotted",
        "Apple Red 1",
        "7",
    ]
    for name in ("001.Crane", "002.Crane", "BMW"):
        picture(tmp_path / name / "1.jpg")
    with refused(UserError, "'001.Crane'", "'002.Crane'", "'classes: {002.Crane"):
        names(tmp_path, "folders")
    assert names(tmp_path, "folders", classes={"002.Crane": "construction crane"}) == [
        "Crane",
        "construction crane",
        "BMW",
    ]
    with refused(NotFound, "'003.Crane'", "Did you mean"):
        names(tmp_path, "folders", classes={"003.Crane": "x"})


def test_contents_tell_images_of_one_file_apart_and_follow_their_bytes(tmp_path):
    write_tar(tmp_path / "d" / "0.tar", {"0.png": encoded(0), "0.cls": b"a", "1.png": encoded(1), "1.cls": b"b"})
    digests = FileDigests(tmp_path / "memo.json")
    before = Samples(rows(tmp_path / "d", "webdataset")).contents(digests)
    assert len(set(before)) == 2
    write_tar(tmp_path / "d" / "0.tar", {"0.png": encoded(9), "0.cls": b"a", "1.png": encoded(1), "1.cls": b"b"})
    assert not set(Samples(rows(tmp_path / "d", "webdataset")).contents(digests)) & set(before)


def test_listed_images_that_are_not_there_are_all_counted(tmp_path):
    cub(tmp_path)
    for path in (tmp_path / "images" / "006.Least_Auklet").iterdir():
        path.unlink()
    with refused(NotFound, "2 images", "Auklet_0005.jpg", "Auklet_0010.jpg"):
        Samples(rows(tmp_path, "cub")).contents(FileDigests(tmp_path / "memo.json"))


def test_text_that_is_not_utf_8(tmp_path):
    cub(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"1 \xff\xfe\n")
    with refused(Damaged, "reader cub", str(tmp_path), "UTF-8"):
        rows(tmp_path, "cub")


def test_photographs_in_archives_can_be_decoded_reduced(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 10, 10)).save(buffer, "jpeg")
    write_tar(tmp_path / "0.tar", {"0.jpg": buffer.getvalue(), "0.cls": b"a"})
    samples = Samples(rows(tmp_path, "webdataset"))
    assert (samples.open(0).image.size, samples.open(0, 16).image.size) == ((64, 64), (16, 16))


@pytest.mark.parametrize(
    ("reader", "kind", "parts"),
    [
        ("folder", NotFound, ["'folder'", "Did you mean 'folders'"]),
        ({"dtd": {"fould": 1}}, NotFound, ["dtd", "'fould'", "Did you mean 'fold'"]),
        ({"cub": 1}, UserError, ["cub", "found 1"]),
        ("folders", NotFound, ["reader folders"]),
    ],
)
def test_mistakes_in_recipes(tmp_path, reader, kind, parts):
    with refused(kind, *parts):
        rows(tmp_path, reader)


def test_shipped_recipes_are_whole():
    project = Project(ROOT)
    assert {
        "cub",
        "dtd",
        "fungi",
        "cifar100",
        "cifar10",
        "fruits",
        "sports",
        "birds",
        "simpsons",
        "few-shot",
        "intel-dev",
    } <= set(project.names("datasets"))
    for name in project.names("datasets"):
        recipe = project.dataset(name)
        assert (ROOT / "prompts" / recipe.prompts / "_shared.yaml").is_file(), name
        with refused(NotFound, "DATA=path"):  # the reader and its arguments are known
            datasets.read(recipe, ROOT / "nowhere", name)
    for name in project.names("benchmarks"):
        benchmark = project.benchmark(name)
        for model in benchmark.models:
            member, entry = project.member(model), project.model(model.partition("@")[0])
            chain_features.check_recipe(project, member, entry.size, entry.resize_mode)
        assert set(benchmark.datasets) <= set(project.names("datasets")), name
        assert all(prompts == "own" or (ROOT / "prompts" / prompts).is_dir() for prompts in benchmark.prompts), name


def test_a_reader_from_anywhere_is_named_in_yaml(tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.READERS, "prefixed", None)  # taken out again afterwards

    @datasets.reader
    def prefixed(path: Path, separator: str = "_"):
        for file in sorted(path.glob("*.jpg")):
            yield datasets.Row(file.name, file.name.partition(separator)[0], "test", file)

    picture(tmp_path / "oak-1.jpg")
    picture(tmp_path / "elm-1.jpg")
    assert table(tmp_path, {"prefixed": "-"}) == [("elm-1.jpg", "elm", "test"), ("oak-1.jpg", "oak", "test")]
    with refused(NotFound, "prefixed", "'seperator'", "Did you mean 'separator'"):
        rows(tmp_path, {"prefixed": {"seperator": "-"}})

"""Images in webdataset tars and Parquet, on a disk and in a store: the same pictures as in files, ids that stay."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.chain import preprocess
from pipeline.chain.damage import picture
from pipeline.chain.main_job import submit
from pipeline.cli.plan import show
from pipeline.cli.predict import predict
from pipeline.core.digests import FileDigests
from pipeline.core.errors import Changed, Damaged, Mismatch, NotFound, Unavailable, UserError
from pipeline.core.store import Url
from pipeline.images import names, packed, tables
from pipeline.images.completeness import gaps
from pipeline.images.listing import images_of, is_there
from pipeline.images.recent import Recent
from pipeline.remote.pack import pack
from pipeline.report import analyse, sheet

from ..chain.test_submit import competition
from ..conftest import IMAGES, fresh, refused
from ..core.test_store import bucket, s3  # noqa: F401  (fixtures)

ENCODED = [f"{number}.jpg" for number in range(IMAGES)]


@pytest.fixture(autouse=True)
def nothing_read_before(monkeypatch):
    monkeypatch.setattr(packed, "BLOCKS", Recent(64))
    monkeypatch.setattr(packed, "GROUPS", Recent(3))


def encoded(root: Path) -> dict[str, bytes]:
    return {name: (root / "data" / "tiny" / name).read_bytes() for name in ENCODED}


def tar_of(members) -> bytes:
    """A tar of (name, content)s, each with a label beside it as webdataset has them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            for member, data in ((name, content), (f"{name.partition('.')[0]}.cls", b"3")):
                about = tarfile.TarInfo(member)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def tars(root: Path) -> dict[str, bytes]:
    """The images of the project in three tars, in their order."""
    members = list(encoded(root).items())
    return {f"{part:02d}.tar": tar_of(members[8 * part : 8 * part + 8]) for part in range(3)}


def parquet_of(columns: dict, **how) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer, **how)
    return buffer.getvalue()


def parquets(root: Path) -> dict[str, bytes]:
    """The images in two files as the `datasets` library writes them, in row groups of 5, with ids."""
    members = list(encoded(root).items())
    return {
        f"train-{part}.parquet": parquet_of(
            {
                "id": [f"n{number}" for number in range(12 * part, 12 * part + len(rows))],
                "image": [{"bytes": content, "path": None} for _, content in rows],
            },
            row_group_size=5,
        )
        for part, rows in enumerate((members[:12], members[12:]))
    }


def put(place, files: dict[str, bytes]):
    """Files below a folder or URL, old enough for what is learnt of them to be kept."""
    for name, content in files.items():
        if not isinstance(place, Url):
            place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        if not isinstance(place, Url):
            os.utime(place / name, (10**9, 10**9))
    return place


def same_pictures(root: Path, source: str) -> list[str]:
    """The ids, where each image is that of the folder."""
    found, files = images_of(source, root, "DATA"), images_of("data/tiny", root, "DATA")
    for row in range(IMAGES):
        assert np.array_equal(np.asarray(found.open(row).image), np.asarray(files.open(row).image))
        assert found.open(row).content == files.open(row).content
    return list(found.ids)


@pytest.mark.parametrize("source", ["data/packed", "data/packed/*.tar", "data/packed/{00..02}.tar"])
def test_tars_hold_the_images_of_files(project_root, source):
    put(project_root / "data" / "packed", tars(project_root))
    assert same_pictures(project_root, source) == [f"{row // 8:02d}.tar/{name}" for row, name in enumerate(ENCODED)]
    assert is_there(source, project_root)


@pytest.mark.parametrize("source", ["memory://bucket/p", "memory://bucket/p/*.tar", "memory://bucket/p/{00..02}.tar"])
def test_tars_in_a_store_do_as_well(project_root, bucket, source):  # noqa: F811
    put(bucket / "p", tars(project_root))
    assert same_pictures(project_root, source) == [f"{row // 8:02d}.tar/{name}" for row, name in enumerate(ENCODED)]


@pytest.mark.parametrize("source", ["data/packed", "memory://bucket/p/train-{0..1}.parquet"])
def test_parquet_holds_the_images_of_files(project_root, bucket, source):  # noqa: F811
    put(bucket / "p", parquets(project_root))
    put(project_root / "data" / "packed", parquets(project_root))
    assert same_pictures(project_root, source) == [f"n{number}" for number in range(IMAGES)]


def test_rows_of_parquet_without_ids_are_counted(project_root):
    content = parquet_of({"jpg": list(encoded(project_root).values()), "label": [1] * IMAGES})
    put(project_root / "data" / "packed", {"a.parquet": content})
    for source in ("data/packed", "data/packed/a.parquet"):
        assert same_pictures(project_root, source) == [f"a.parquet/{row}" for row in range(IMAGES)]


@pytest.mark.parametrize("kind", ["large_binary", "binary_view", "dictionary"])
def test_other_kinds_of_bytes_are_bytes(project_root, kind):
    pyarrow = pytest.importorskip("pyarrow")
    column = pyarrow.array(list(encoded(project_root).values()), pyarrow.binary())
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(getattr(pyarrow, kind)())
    put(project_root / "data" / "packed", {"a.parquet": parquet_of({"image": column}, row_group_size=7)})
    assert same_pictures(project_root, "data/packed") == [f"a.parquet/{row}" for row in range(IMAGES)]


def test_neighbours_in_a_store_come_with_one_request(project_root, bucket, monkeypatch):  # noqa: F811
    put(bucket / "p", tars(project_root))
    found, asked = images_of("memory://bucket/p", project_root, "DATA"), []
    ranges = Url.ranges
    monkeypatch.setattr(Url, "ranges", lambda url, spans: asked.append(spans) or ranges(url, spans))
    for row in range(IMAGES):
        found.open(row)
    assert len(asked) == 3, "a request for eight images"
    monkeypatch.setattr(packed, "NEAR_BYTES", 1)
    monkeypatch.setattr(packed, "BLOCKS", Recent(64))
    assert found.open(9).content == images_of("data/tiny", project_root, "DATA").open(9).content
    assert asked[3:] == [[tuple(np.cumsum(found.places[9]).tolist())]]


def test_an_index_is_learnt_once_and_again_when_its_file_changes(project_root, monkeypatch):
    folder = put(project_root / "data" / "packed", tars(project_root))
    monkeypatch.setattr(packed, "is_settled", lambda status: True)
    first, learnt = images_of("data/packed", project_root, "DATA"), []
    learn = packed._learnt
    monkeypatch.setattr(packed, "_learnt", lambda source, file: learnt.append(file.name) or learn(source, file))
    again = images_of("data/packed", project_root, "DATA")
    assert learnt == [] and again.ids == first.ids and np.array_equal(again.places, first.places)
    put(folder, {"01.tar": tar_of([("x.jpg", encoded(project_root)["3.jpg"])])})
    assert images_of("data/packed", project_root, "DATA").ids[8:10] == ["01.tar/x.jpg", "02.tar/16.jpg"]
    assert learnt == ["01.tar"]
    with refused(Changed, "01.tar"):  # the places of the first are of another file
        first.open(8)


def test_files_that_are_young_are_learnt_again(project_root, monkeypatch):
    put(project_root / "data" / "packed", tars(project_root))
    monkeypatch.setattr(packed, "is_settled", lambda status: False)
    images_of("data/packed", project_root, "DATA")
    assert not list((project_root / "cache").rglob("indexes/*.pt"))


def test_contents_are_of_the_files_bytes_and_follow_them(project_root, bucket, tmp_path):  # noqa: F811
    folder = put(project_root / "data" / "packed", tars(project_root))
    before = preprocess.stage(fresh(project_root, data="data/packed"), "tiny").digest
    for path in folder.iterdir():
        os.utime(path, (10**9 + 5, 10**9 + 5))
    assert preprocess.stage(fresh(project_root, data="data/packed"), "tiny").digest == before
    put(folder, {"02.tar": tar_of([("16.jpg", b"other")])})
    assert preprocess.stage(fresh(project_root, data="data/packed"), "tiny").digest != before
    found = images_of("data/packed", project_root, "DATA")
    with FileDigests(tmp_path / "memo.json") as digests:
        contents = found.contents(digests)
    assert len(set(contents)) == len(contents) == len(found.ids)
    assert list(contents) == [contents[row] for row in range(len(contents))] == contents[:]
    assert all(" " in content for content in contents), "no digest of the image's bytes alone"


def test_submissions_from_tars_and_parquet_are_those_from_files(project_root, bucket):  # noqa: F811
    expected = submit(fresh(project_root, shard_rows=5), "one").read_text()
    put(bucket / "tars", tars(project_root))
    put(bucket / "parquet", parquets(project_root))
    for source in ("memory://bucket/tars/{00..02}.tar", "memory://bucket/parquet"):
        shutil.rmtree(project_root / "submissions")
        task = fresh(project_root, shard_rows=5, data=source)
        assert submit(task, "one").read_text() == expected
        how = json.loads(next((project_root / "submissions" / "tiny").glob("*.json")).read_text())
        assert how["data"] == source
    assert sheet.draw(fresh(project_root, data=source), None).is_file()
    show(fresh(project_root, data=source), "one")


def test_a_gap_in_the_numbers_of_members_is_one(project_root, capsys):
    members = list(encoded(project_root).items())
    whole = {"9.tar": tar_of(members[:10]), "10.tar": tar_of(members[10:])}
    folder = put(project_root / "data" / "packed", whole)
    assert len(fresh(project_root, data="data/packed").images.ids) == IMAGES, "numbers go on from tar to tar"
    put(folder, {"9.tar": tar_of(members[:5] + members[6:10])})
    with refused(NotFound, "data/packed", "first 5", f"'count: {IMAGES - 1}' in competitions/tiny.yaml"):
        _ = fresh(project_root, data="data/packed").images
    competition(project_root, columns={"id": "stem", "label": "label"})
    assert len(fresh(project_root, data="data/packed").images.ids) == IMAGES - 1
    assert "1 numbers are missing, first 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "missing"),
    [
        (range(20), range(20, 40), []),
        (range(20), range(20), []),
        (range(20), range(100, 120), []),
        (range(20), range(21, 40), [20]),
        ([*range(7), *range(8, 20)], range(20, 40), [7]),
    ],
)
def test_numbers_go_on_from_tar_to_tar_or_begin_again(tmp_path, first, second, missing):
    for number, numbers in enumerate((first, second)):
        put(tmp_path / "d" / "a", {f"{number}.tar": tar_of((f"x/{n:04d}.jpg", b"1") for n in numbers)})
    assert gaps(images_of("d/**/*.tar", tmp_path, "DATA")) == missing


def test_numbers_of_rows_have_no_gaps(tmp_path):
    ids = [str(number) for number in range(40) if number != 7]
    put(tmp_path / "d", {"a.parquet": parquet_of({"id": ids, "image": [b"1"] * len(ids)})})
    assert gaps(images_of("d", tmp_path, "DATA")) == []


def test_ids_of_members_and_of_columns_are_written(project_root):
    put(project_root / "data" / "tars", tars(project_root))
    put(project_root / "data" / "parquet", parquets(project_root))
    numbered = [f"n{number}" for number in range(IMAGES)]
    for images, kind, ids in (("data/tars", "stem", range(IMAGES)), ("data/parquet", "path", numbered)):
        competition(project_root, images=images, columns={"id": kind, "label": "label"})
        lines = submit(fresh(project_root), "one").read_text().splitlines()[1:]
        assert [line.split(",")[0] for line in lines] == list(map(str, ids))


def test_predict_reads_tars_and_leaves_damaged_members_out(project_root):
    members = list(encoded(project_root).items())
    members[4] = "4.jpg", b"damaged"
    put(project_root / "data" / "packed", {"0.tar": tar_of(members)})
    with refused(Damaged, "0.tar/4.jpg", f"1 of {IMAGES}"):
        predict(fresh(project_root), "vit", "data/packed/0.tar", "cat,dog", None, 1, "out.csv")
    written = [line.split(",")[0] for line in (project_root / "out.csv").read_text().splitlines()[1:]]
    assert written == [f"0.tar/{name}" for name in ENCODED if name != "4.jpg"]


@pytest.mark.parametrize("how", ["fill", "fallback", "error"])
def test_damaged_members_are_what_damaged_images_are(project_root, how):
    contents = encoded(project_root)
    contents["4.jpg"], contents["9.jpg"] = b"damaged", contents["9.jpg"][:-300]
    put(project_root / "data" / "packed", {"0.tar": tar_of(contents.items())})
    for name in ("4.jpg", "9.jpg"):
        (project_root / "data" / "tiny" / name).write_bytes(contents[name])
    for source in ("data/tiny", "data/packed"):
        competition(project_root, images=source, damaged_images=how)
        task = fresh(project_root)
        if how == "error":
            with refused(Damaged, "4.jpg"):
                picture(task, 4, None)
        else:
            assert picture(task, 4, None).image is None
        if how == "fill":
            assert picture(task, 9, None).damage


def test_rows_without_an_image_are_damaged_images(project_root):
    rows = [{"bytes": content, "path": None} for content in encoded(project_root).values()]
    rows[2] = {"bytes": None, "path": "elsewhere.jpg"}
    put(project_root / "data" / "packed", {"a.parquet": parquet_of({"image": rows})})
    with refused(Damaged, "a.parquet/2", "'image'"):
        images_of("data/packed", project_root, "DATA").open(2)


def damaged_group(root: Path) -> bytes:
    content = bytearray(parquet_of({"image": list(encoded(root).values())}, row_group_size=4, compression="zstd"))
    content[40:200] = bytes(160)
    return bytes(content)


def test_a_damaged_row_group_is_damaged_images(project_root):
    put(project_root / "data" / "packed", {"a.parquet": damaged_group(project_root)})
    found = images_of("data/packed", project_root, "DATA")
    with refused(Damaged, "a.parquet/1"):
        found.open(1)
    assert found.open(20).image.size


@pytest.mark.parametrize(
    ("files", "kind", "parts"),
    [
        (
            {"0.tar": tar_of([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")])},
            Damaged,
            ["0.tar", "a.jpg", "512", "4608"],
        ),
        ({"0.tar": b"no tar" * 200}, Damaged, ["0.tar"]),
        ({"0.tar": tar_of([("a.jpg", b"1" * 5000)])[:3000]}, Damaged, ["0.tar"]),
        ({"0.tar": tar_of([("a.txt", b"1")])}, NotFound, ["0.tar"]),
        ({"0.tar": tar_of([("a.jpg", b"1")]), "0.parquet": b""}, UserError, ["pattern"]),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, files, kind, parts):
    put(tmp_path / "d", files)
    with refused(kind, *parts):
        images_of("d", tmp_path, "DATA")


WHOLE = tar_of([("a.jpg", b"1" * 700), ("b.jpg", b"2"), ("c.jpg", b"3")])  # each header is at one of these bytes:
A_LABEL, B, B_LABEL, C, C_LABEL, END = 1536, 2560, 3584, 4608, 5632, 6656


def over(at: int, content: bytes) -> bytes:
    return WHOLE[:at] + content + WHOLE[at + len(content) :]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (WHOLE[:C], [f"byte {C}", "no end marker"]),
        (WHOLE[:END], [f"byte {END}", "no end marker"]),
        (WHOLE[: END + 1023], [f"byte {END}", "no end marker"]),
        (WHOLE[:A_LABEL], [f"byte {A_LABEL}", "no end marker"]),
        (WHOLE[: B + 100], [f"byte {B}", "header"]),
        (WHOLE[: A_LABEL + 512], ["unexpected end"]),
        (over(B + 100, b"?" * 10), [f"byte {B}", "header"]),
        (over(B, bytes(512)), [f"byte {B}", f"byte {B + 512}"]),
        (over(B, bytes(1024)), [f"byte {B}", f"byte {B_LABEL}"]),
        (over(0, bytes(512)), ["byte 0", "byte 512"]),
        (over(B_LABEL, bytes(2048)), [f"byte {B_LABEL}", f"byte {C_LABEL}"]),
        (WHOLE + WHOLE, [f"byte {END}", f"byte {len(WHOLE)}"]),
        (WHOLE + b"x", [f"byte {END}", f"byte {len(WHOLE)}"]),
        (over(END + 600, b"x"), [f"byte {END}", f"byte {END + 600}"]),
    ],
)
def test_a_tar_that_is_not_whole_is_refused(tmp_path, bucket, content, parts):  # noqa: F811
    put(tmp_path / "d", {"0.tar": content})
    put(bucket / "p", {"0.tar": content})
    for source in ("d", "memory://bucket/p"):
        with refused(Damaged, "0.tar", *parts):
            images_of(source, tmp_path, "DATA")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("after", [END + 1024, len(WHOLE), 5 * len(WHOLE)])
def test_whole_tars_of_every_kind_and_padding_are_read(tmp_path, kind, after):
    names_ = ["a" * 60 + "/" + "b" * 60 + ".jpg", "é" * 30 + ".jpg", "folder/" * 12 + "c.jpg"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name in names_:
            about = tarfile.TarInfo(name)
            about.size = 3
            tar.addfile(about, io.BytesIO(b"123"))
    end = buffer.getvalue().rstrip(b"\0")
    end += bytes(-len(end) % 512)
    put(tmp_path / "d", {"0.tar": end + bytes(after - END)})
    assert images_of("d", tmp_path, "DATA").ids == [f"0.tar/{name}" for name in names_]


def test_a_member_of_less_than_nothing_ends_the_run_as_well(tmp_path):
    header = tarfile.TarInfo("a.jpg")
    header.size = -1024
    put(tmp_path / "d", {"0.tar": header.tobuf(tarfile.GNU_FORMAT) + bytes(10240)})
    with refused(Damaged, "0.tar"):
        images_of("d", tmp_path, "DATA")


def linked(members, links) -> bytes:
    """A tar of members, and after each of them the (name, type, target) of `links` that its name has."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
            for link, kind, target in links.get(name, ()):
                about = tarfile.TarInfo(link)
                about.type, about.linkname = kind, target
                tar.addfile(about)
    return buffer.getvalue()


@pytest.mark.parametrize("source", ["data/packed", "memory://bucket/p"])
def test_hard_links_are_the_images_that_they_name(project_root, bucket, source):  # noqa: F811
    members = list(encoded(project_root).items())[:5]
    links = {"0.jpg": [("l.cls", tarfile.SYMTYPE, "0.jpg"), ("x.cls", tarfile.LNKTYPE, "none.cls")]}
    links |= {"3.jpg": [("m.jpg", tarfile.LNKTYPE, "./1.jpg"), ("n.jpg", tarfile.LNKTYPE, "m.jpg")]}
    for place in (bucket / "p", project_root / "data" / "packed"):
        put(place, {"0.tar": linked(members, links)})
    found, files = images_of(source, project_root, "DATA"), images_of("data/tiny", project_root, "DATA")
    assert found.ids == [f"0.tar/{name}.jpg" for name in "0123mn4"]
    for row, same in enumerate([0, 1, 2, 3, 1, 1, 4]):
        assert found.open(row).content == files.open(same).content


def test_a_hard_link_may_be_first_of_those_that_are_read_together(project_root, bucket):  # noqa: F811
    members = list(encoded(project_root).items())[:9]
    put(bucket / "p", {"0.tar": linked(members, {"7.jpg": [("m.jpg", tarfile.LNKTYPE, "2.jpg")]})})
    found, files = images_of("memory://bucket/p", project_root, "DATA"), images_of("data/tiny", project_root, "DATA")
    assert found.ids[8] == "0.tar/m.jpg"
    assert found.open(9).content == files.open(8).content
    assert found.open(8).content == files.open(2).content


@pytest.mark.parametrize(
    ("kind", "target", "parts"),
    [
        (tarfile.SYMTYPE, "0.jpg", ["symbolic link to 0.jpg"]),
        (tarfile.LNKTYPE, "2.jpg", ["hard link to 2.jpg"]),
        (tarfile.DIRTYPE, "", ["folder"]),
        (tarfile.FIFOTYPE, "", ["no plain file"]),
        (tarfile.CHRTYPE, "", ["no plain file"]),
        (tarfile.GNUTYPE_SPARSE, "", ["sparse"]),
    ],
)
def test_what_is_called_like_an_image_in_a_tar_and_is_none_is_named(project_root, kind, target, parts):
    members, odd = list(encoded(project_root).items()), ("b/5.jpg", kind, target)
    put(project_root / "data" / "packed", {"0.tar": linked(members, {"1.jpg": [odd]})})
    with refused(Damaged, "0.tar", "b/5.jpg (", *parts):
        images_of("data/packed", project_root, "DATA")


@pytest.mark.parametrize(
    ("files", "kind", "parts"),
    [
        ([{"id": ["a", "b"]}, {"id": ["c", "a"]}], Damaged, ["'a'", "row 0 of 0.parquet", "row 1 of 1.parquet"]),
        ([{"id": ["c", "d"]}, {"id": ["a", "a"]}], Damaged, ["'a'", "row 0 of 1.parquet", "row 1 of 1.parquet"]),
        ([{"id": ["a", "b"]}, {}], Mismatch, ["1.parquet", "'id'"]),
        ([{"id": ["a", None]}], Damaged, ["0.parquet", "row 1"]),
        ([{"image": ["text", "more"]}], NotFound, ["0.parquet", "'image'"]),
    ],
)
def test_ids_and_columns_that_cannot_be_are_refused(tmp_path, files, kind, parts):
    tables_ = [parquet_of({"image": [b"1", b"2"]} | columns) for columns in files]
    put(tmp_path / "d", {f"{number}.parquet": content for number, content in enumerate(tables_)})
    with refused(kind, *parts):
        images_of("d", tmp_path, "DATA")


def test_several_columns_that_may_be_images_are_named(tmp_path):
    content = parquet_of({"left": [b"1"], "right": [{"bytes": b"2", "path": "x"}]})
    put(tmp_path / "d", {"0.parquet": content, "1.parquet": b"PAR1"})
    with refused(NotFound, "left, right"):
        images_of("d/0.parquet", tmp_path, "DATA")
    with refused(Damaged, "1.parquet"):
        images_of("d/1.parquet", tmp_path, "DATA")


def test_a_row_group_that_is_too_large_is_told(project_root, monkeypatch):
    put(project_root / "data" / "packed", parquets(project_root))
    monkeypatch.setattr(tables, "LARGEST", 100)
    with refused(Unavailable, "train-0.parquet", "smaller"):
        images_of("data/packed", project_root, "DATA").open(0)


def test_tars_beside_images_are_left_out_and_files_that_are_not_there_are_named(project_root):
    put(project_root / "data" / "tiny", {"0.tar": tar_of([("a.jpg", b"1")])})
    assert images_of("data/tiny", project_root, "DATA").ids == ENCODED
    put(project_root / "data" / "packed", tars(project_root))
    with refused(NotFound, "03.tar"):
        images_of("data/packed/{00..04}.tar", project_root, "DATA")
    only = images_of("data/packed/{01..01}.tar", project_root, "DATA")
    assert only.files == ("01.tar",) and only.ids[0].startswith("01.tar/")
    with refused(UserError, "{0..2}.jpg", "0.jpg"):
        images_of("data/tiny/{0..2}.jpg", project_root, "DATA")
    with refused(UserError, "{04..00}.tar", "upwards"):
        images_of("data/packed/{04..00}.tar", project_root, "DATA")
    assert not is_there("data/none/{00..04}.tar", project_root)


def test_what_needs_files_says_so(project_root):
    put(project_root / "data" / "packed", tars(project_root))
    task = fresh(project_root, data="data/packed")
    with refused(UserError, "data/packed", "pack"):
        pack(task, "both", None, with_images=False, history=False)
    with refused(UserError, "data/packed", "analyse"):
        analyse.write(task)


def test_who_asks_for_what_is_on_its_way_waits_for_it_and_failures_are_tried_again():
    recent, asked = Recent(2), []

    def fails():
        asked.append(1)
        raise OSError("cut off")

    for _ in range(2):
        with pytest.raises(OSError):
            recent.get("a", fails)
    assert len(asked) == 2 and recent.get("a", lambda: 5) == recent.get("a", fails) == 5
    assert [recent.get(key, lambda key=key: key) for key in "bcd"] == list("bcd")
    assert recent.get("a", lambda: 6) == 6, "the oldest are forgotten"


def test_braces_count():
    assert names.counted("a/{08..10}-{1..2}.tar")[:3] == ["a/08-1.tar", "a/08-2.tar", "a/09-1.tar"]
    assert names.counted("a/{b}.tar") == ["a/{b}.tar"] and len(names.counted("{00000..01023}.tar")) == 1024


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "fail", "cut"])
def test_tars_and_parquet_in_s3(project_root, s3, fault):  # noqa: F811
    expected = submit(fresh(project_root, shard_rows=8), "both").read_text()
    put(Url("s3://bucket/tars"), tars(project_root))
    put(Url("s3://bucket/parquet"), parquets(project_root))
    s3.fault(fault)
    for source in ("s3://bucket/tars/{00..02}.tar", "s3://bucket/parquet"):
        shutil.rmtree(project_root / "submissions")
        assert submit(fresh(project_root, shard_rows=8, data=source), "both").read_text() == expected

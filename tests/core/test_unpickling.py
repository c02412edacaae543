"""Files of torch by the unpickler in C: what torch's own gives, and nothing that a pickle names is called."""

import copyreg
import io
import pickle
import zipfile

import pytest
import torch
from torch._utils import _rebuild_tensor_v2

from pipeline.core import unpickling

CALLED = []


class Calls:
    """Unpickled as a call."""

    def __init__(self, function, *arguments):
        self.as_call = function, arguments

    def __reduce__(self):
        return self.as_call


def call_me(*arguments):
    CALLED.append(arguments)


def equal(one, other) -> bool:
    if torch.is_tensor(one):
        return torch.equal(one, other) and (one.dtype, one.stride()) == (other.dtype, other.stride())
    if isinstance(one, dict):
        return type(one) is type(other) and list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def contents() -> dict:
    rows = torch.arange(24.0).reshape(4, 6)
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)
    return {
        **{str(dtype): rows.to(dtype) for dtype in dtypes},
        "view": rows[1:, ::2].T,
        "same": rows,
        "empty": rows[:0],
        "scalar": torch.tensor(3),
        "words": ["ä", "", "\udcff", "x" * 300],
        "numbers": [1, -(2**70), 2.5, True, None],
        "weights": torch.nn.Linear(2, 3).state_dict(),
    }


@pytest.fixture
def torch_decides(monkeypatch) -> list:
    """Whether torch's own was asked."""
    asked, original = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **named: asked.append(named) or original(*a, **named))
    return asked


def test_what_is_saved_is_read_as_torch_reads_it(tmp_path, torch_decides):
    torch.save(contents(), tmp_path / "x.pt")
    found = unpickling.load(tmp_path / "x.pt")
    assert not torch_decides, "all of it is plain"
    assert equal(found, torch.load(tmp_path / "x.pt", weights_only=True))
    assert found["same"].untyped_storage().data_ptr() == found["view"].untyped_storage().data_ptr()


def test_a_file_in_memory_is_read_as_well(torch_decides):
    file = io.BytesIO()
    torch.save(contents(), file)  # which leaves it at its end
    found = unpickling.load(file)
    assert not torch_decides
    file.seek(0)
    assert equal(found, torch.load(file, weights_only=True))
    torch.save({"weight": torch.nn.Parameter(torch.ones(3))}, file := io.BytesIO())
    assert torch.equal(unpickling.load(file)["weight"], torch.ones(3)) and len(torch_decides) == 2


def test_what_is_not_plain_is_torchs_to_decide(tmp_path, torch_decides):
    torch.save({"weight": torch.nn.Parameter(torch.ones(3))}, tmp_path / "x.pt")
    assert isinstance(unpickling.load(tmp_path / "x.pt")["weight"], torch.nn.Parameter)
    assert [named["weights_only"] for named in torch_decides] == [True]


def with_pickle(path, content: bytes):
    """A whole file of torch's whose pickle is another one."""
    file = io.BytesIO()
    torch.save({"rows": torch.ones(3)}, file)
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(path, "w") as after:
        for record in before.infolist():
            after.writestr(record, content if record.filename.endswith("data.pkl") else before.read(record))
    return path


# the function on the stack, set as it would be by BUILD: (None, {name: value})
BUILT = pickle.dumps(_rebuild_tensor_v2, 2)[:-1] + pickle.dumps((None, {"__defaults__": ("x",)}), 2)[2:-1] + b"b."


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Calls(call_me, "reduced"), 2),
        pickle.dumps(Calls(call_me, "reduced"), 4),
        b"c__builtin__\neval\n(X\x01\x00\x00\x001tR.",
        b"(i__builtin__\neval\n.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        BUILT,
        pickle.dumps(Calls(copyreg._reconstructor, Calls, object, None), 2),
    ],
    ids=["reduce", "stack-global", "eval", "instance", "dotted", "build", "reconstructor"],
)
def test_nothing_that_a_pickle_names_is_called_or_changed(tmp_path, content):
    defaults = _rebuild_tensor_v2.__defaults__
    with pytest.raises(Exception, match="."):
        unpickling.load(with_pickle(tmp_path / "x.pt", content))
    assert CALLED == [] and _rebuild_tensor_v2.__defaults__ is defaults


def test_the_same_calls_are_made_by_an_unpickler_that_finds_all():
    pickle.loads(pickle.dumps(Calls(call_me, "reduced"), 2))
    assert CALLED.pop() == ("reduced",)

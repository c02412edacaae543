"""Tables read back as what was put in, by others than us."""

import csv
import io

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.tables import CHUNK, csv_lines, csv_text, markdown, table

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ROWS = st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5)


@given(ROWS)
def test_a_csv_reads_back_by_csv_and_by_pandas(rows):
    text = csv_text(("a", "b"), rows)
    assert text == "a,b\n" + csv_lines(rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], *rows]
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=False)
    assert frame.to_numpy().tolist() == rows


def test_rows_are_not_held_while_they_are_written():
    """Ten million of them would take more memory than all else of a submission."""

    class Row(list):
        now = most = 0

        def __init__(self, *cells):
            super().__init__(cells)
            Row.now += 1
            Row.most = max(Row.most, Row.now)

        def __del__(self):
            Row.now -= 1

    text = csv_text(("a", "b"), (Row(str(n), "x") for n in range(4 * CHUNK)))
    assert text.count("\n") == 4 * CHUNK + 1
    assert CHUNK <= Row.most <= 2 * CHUNK + 1


def test_columns_of_numbers_are_to_the_right_with_their_header():
    assert table(("name", "share", ""), [("2b", "0.5", ""), ("cat", "-12.25", "x")]) == (
        "name   share\n2b       0.5\ncat   -12.25  x"
    )
    assert table(("name", "n"), []) == "name  n"


def test_a_bar_in_a_cell_is_no_border():
    assert markdown(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"

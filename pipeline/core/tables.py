"""Tables on the terminal."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Columns of text, padded; numbers to the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]

    def cell(text: str, width: int) -> str:
        return text.rjust(width) if text[:1].isdigit() else text.ljust(width)

    return "\n".join("  ".join(map(cell, line, widths)).rstrip() for line in lines)

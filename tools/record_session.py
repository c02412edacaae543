"""Records the terminal session of the README: python tools/record_session.py (by hand; about a minute on two cores).

It clones this checkout into a temporary folder, makes the first submission there, then runs the session's lines for
real and draws what they printed as docs/pictures/session.svg. Nothing is edited but what is told in the picture.
"""

import html
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "pictures" / "session.svg"
BEFORE = "make submit"  # encodes the images; what is recorded comes after it
SESSION = (
    'echo "  - A photo of blue ice between rocks" >> prompts/scene/glacier.yaml',
    "make submit",
    "make diff A=1 B=2",
)
WIDTH = 104  # characters; longer lines are wrapped as a terminal wraps them
CHARACTER, LINE, MARGIN = 7.8, 18, 16  # pixels
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def cloned(folder: Path) -> Path:
    """A clone of this checkout's last commit."""
    root = folder / "project"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    return root


def run(line: str, root: Path) -> tuple[str, float]:
    """What a line of shell prints, stdout and stderr as they come, and how long it takes in seconds."""
    start = time.perf_counter()
    command = line.replace("make ", f"make PYTHON={sys.executable} ", 1) if line.startswith("make ") else line
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))}
    kept["COLUMNS"] = str(WIDTH)
    done = subprocess.run(
        command, shell=True, cwd=root, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{line}: exit status {done.returncode}\n{done.stdout}")
    return ANSI.sub("", done.stdout).rstrip("\n"), time.perf_counter() - start


def rows(session: list[tuple[str, str, float]]) -> list[tuple[str, str]]:
    """(class, text) of each row of the picture."""
    found = []
    for line, printed, seconds in session:
        found.append(("prompt", f"$ {line}"))
        found += [
            ("", text[start : start + WIDTH]) for text in printed.splitlines() for start in range(0, len(text), WIDTH)
        ]
        if line.startswith("make "):
            found.append(("time", f"{seconds:.1f} s"))
    return found


def drawn(found: list[tuple[str, str]], told: str) -> str:
    """The rows as an SVG; each is as wide as its characters, whatever font the reader has."""
    width, height = round(2 * MARGIN + WIDTH * CHARACTER), 2 * MARGIN + LINE * (len(found) + 1)
    texts = []
    for number, (kind, row) in enumerate([*found, ("time", told)]):
        if row.strip():
            place = f'x="{MARGIN}" y="{MARGIN + LINE * (number + 0.75):.1f}" textLength="{len(row) * CHARACTER:.1f}"'
            name = f' class="{kind}"' if kind else ""
            texts.append(f'<text {place}{name} xml:space="preserve">{html.escape(row, quote=False)}</text>')
    style = (
        "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d8dee9}"
        ".prompt{fill:#a3d9a5;font-weight:600}.time{fill:#7d8899}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="A prompt is edited, submitted and compared">',
            f'<style>{style}</style><rect width="{width}" height="{height}" rx="8" fill="#1b1f27"/>',
            *texts,
            "</svg>\n",
        ]
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = cloned(Path(folder))
        run(BEFORE, root)
        session = [(line, *run(line, root)) for line in SESSION]
    told = f"recorded by tools/record_session.py on {os.cpu_count()} CPU cores, after a first '{BEFORE}'"
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(rows(session), told), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

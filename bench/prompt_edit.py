"""What a prompt edit costs, beside `import torch` and beside running the notebook again.

8,100 images (the demo's, repeated) x 312 prompts x 2 demo models, features cached. Alternating runs, medians.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 8100
ROUNDS = 5

NOTEBOOK = """
import sys
from pathlib import Path
from pipeline.core._torchvision import allow_import
allow_import()
import open_clip, torch
from natsort import natsorted
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project
prompts = list(CompetitionTask(Project("."), "bench").prompts.prompts)

class Folder(Dataset):
    def __init__(self, transform):
        self.files, self.transform = natsorted(Path("images").glob("*.jpg")), transform
    def __len__(self):
        return len(self.files)
    def __getitem__(self, n):
        return self.transform(Image.open(self.files[n]).convert("RGB"))

blended = 0
for name, sharpness in (("demo-vit", 2.0), ("demo-resnet", 1.0)):
    model = open_clip.create_model(f"local-dir:demo/models/{name}").eval()
    cfg = model.visual.preprocess_cfg
    transform = T.Compose([T.Resize((64, 64), T.InterpolationMode.BICUBIC), T.RandomAdjustSharpness(sharpness, p=1),
                           T.ToTensor(), T.Normalize(cfg["mean"], cfg["std"])])
    with torch.inference_mode():
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:demo/models/{name}")(prompts), normalize=True)
        loader = DataLoader(Folder(transform), batch_size=32, num_workers=2)
        image = torch.cat([model.encode_image(batch, normalize=True) for batch in loader])
        blended = blended + 0.5 * (model.logit_scale.exp() * image @ text.T).softmax(dim=-1)
blended = torch.where(blended > 0.002, blended, 0)
labels = blended.reshape(len(blended), 6, -1).mean(dim=-1).argmax(dim=-1).tolist()
Path("notebook.csv").write_text("id_idx,label\\n" + "".join(f"{n},{label}\\n" for n, label in enumerate(labels)))
"""


def seconds(command: list[str], folder: Path) -> float:
    """Wall time of a command that must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return time.perf_counter() - began


def project(folder: Path) -> None:
    """A copy of this project's recipes with a competition `bench` of 8,100 images."""
    for name in ("preprocess", "ensembles", "prompts", "competitions"):
        shutil.copytree(ROOT / name, folder / name)
    for path in (*(ROOT / name for name in ("Makefile", "models.yaml", "pyproject.toml")), *ROOT.glob("requirements*")):
        shutil.copy2(path, folder)  # with their times, or make would install again
    for name in ("demo", ".venv", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        shutil.copy(ROOT / "demo" / "images" / f"{number % 600}.jpg", folder / "images" / f"{number}.jpg")
    demo = (ROOT / "competitions" / "demo.yaml").read_text()
    keep = [line for line in demo.splitlines() if not line.startswith(("images:", "solution:", "#"))]
    (folder / "competitions" / "bench.yaml").write_text("\n".join(["images: images", *keep]) + "\n")
    time.sleep(2.1)  # files must be older than the cache trusts blindly, as a user's are


def measure(folder: Path) -> dict[str, list[float]]:
    """Seconds of each way, alternating."""
    submit = ["make", "submit", "COMPETITION=bench"]
    seconds(submit, folder)
    glacier = folder / "prompts" / "scene" / "glacier.yaml"
    original, taken = (
        glacier.read_text(),
        {name: [] for name in ("torch", "nothing", "none new", "one new", "notebook")},
    )
    for number in range(ROUNDS):
        taken["torch"].append(seconds([sys.executable, "-c", "import torch"], folder))
        taken["nothing"].append(seconds(submit, folder))
        glacier.write_text(f'{original}weights: {{"A picture of an ice": {number + 2}.0}}\n')
        taken["none new"].append(seconds(submit, folder))
        glacier.write_text(f"{original}  - a frozen river number {number}\n")
        taken["one new"].append(seconds(submit, folder))
        glacier.write_text(original)
        if number < 2:  # slow, and its ratio is not subtle
            taken["notebook"].append(seconds([sys.executable, "-c", NOTEBOOK], folder))
    return taken


def main() -> str:
    """Measure, and return the Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        taken = measure(folder)
    median = {name: statistics.median(values) for name, values in taken.items()}
    rows = [
        ("`python -c 'import torch'`", "torch", "the unit"),
        ("`make submit`, nothing edited", "nothing", ""),
        ("`make submit` after an edit without a new prompt (a weight)", "none new", "at most 3"),
        ("`make submit` after adding a prompt (both text towers loaded)", "one new", "3, plus loading two text towers"),
        ("the notebook again (re-encodes every image)", "notebook", ""),
    ]
    table = [
        "### A prompt edit (bench/prompt_edit.py)",
        "",
        f"{IMAGES:,} images x 312 prompts x 2 demo models, features cached; median of {ROUNDS} alternating runs.",
        "",
        "| what | seconds | x `import torch` | target |",
        "|---|---|---|---|",
        *(f"| {text} | {median[k]:.2f} | {median[k] / median['torch']:.2f} | {goal} |" for text, k, goal in rows),
    ]
    return "\n".join(table)


if __name__ == "__main__":
    print(main())

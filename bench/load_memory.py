"""Peak host memory while EVA-CLIP is loaded: pipeline.models.evaclip beside `init, then load_state_dict`.

    python bench/load_memory.py [GB]

Writes a random fp16 checkpoint of that size (default 2.5) into a temporary folder and loads both of its towers on
the CPU in processes of their own. Anonymous memory is counted: pages of the mapped file can be dropped at any
time, so they are no need of the loader.
"""

import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FILE = "eva.fp16.pt"
WIDTH = 1024


def main(gb: float = 2.5) -> str:
    """Measure, and return the Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        _child("write", folder, str(gb))
        size = (Path(folder) / FILE).stat().st_size / 1e9
        ours, plain = (json.loads(_child(what, folder).splitlines()[-1]) for what in ("ours", "plain"))
    rows = [
        "### Memory while loading (bench/load_memory.py)",
        "",
        "| loading both towers, fp16 | peak GB | of the file | before loading, GB |",
        "|---|---|---|---|",
        *(
            f"| {name} | {run['peak']:.2f} | {run['peak'] / size:.0%} | {run['before']:.2f} |"
            for name, run in (("pipeline.models.evaclip", ours), ("init, then load_state_dict", plain))
        ),
        "",
        f"A random checkpoint of {size:.2f} GB; {plain['peak'] / ours['peak']:.0f} times less anonymous host memory.",
    ]
    return "\n".join(rows)


def _child(*arguments: str) -> str:
    command = [sys.executable, __file__, "--child", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def config_of(gb: float):
    """Sizes of a narrow EVA-CLIP that fills `gb` in fp16: a block of the image tower has 14 W^2 weights."""
    from pipeline.models._eva_towers import EvaConfig

    text_gb = 2 * (49408 * 256 + 2 * 12 * 256**2) / 1e9
    depth = max(1, round((gb - text_gb) * 1e9 / 2 / (14 * WIDTH**2)))
    return EvaConfig(
        embed_dim=256,
        width=WIDTH,
        depth=depth,
        heads=8,
        mlp_width=5 * WIDTH,
        post_norm=True,
        text_width=256,
        text_depth=2,
        text_heads=4,
        text_mlp_width=1024,
    )


def write(folder: Path, gb: float) -> None:
    import torch

    from pipeline.models import _eva_towers as towers
    from pipeline.models import evaclip

    config, state = config_of(gb), {}
    for tower, module in towers.TOWERS.items():
        with torch.device("meta"):
            shapes = {name: parameter.shape for name, parameter in module(config).named_parameters()}
        for name, shape in shapes.items():
            source, part = towers.source_of(name, tower, "pt")
            shape = shape[::-1] if source in towers.TRANSPOSED else shape
            shape = (3 * shape[0], *shape[1:]) if part is not None else shape
            if source not in state:
                state[source] = torch.empty(shape, dtype=torch.float16).uniform_(-0.05, 0.05)
    torch.save(state, folder / FILE)
    (folder / evaclip.CONFIG_FILE).write_text(json.dumps(asdict(config)))


def ours(folder: Path):
    import torch

    from pipeline import models
    from pipeline.recipes import ModelEntry

    entry = ModelEntry(family="evaclip", weights=str(folder), file=FILE, preprocess="plain")
    return lambda: [models.load("eva", entry, ROOT, tower, torch.device("cpu"), "fp16") for tower in ("image", "text")]


def plain(folder: Path):
    """What most code does: build the model with its initial values, read the file, copy, convert."""
    import torch

    from pipeline.models import _eva_towers as towers
    from pipeline.models import evaclip

    def load():
        config = evaclip._read_config(folder / evaclip.CONFIG_FILE)
        models = {tower: module(config) for tower, module in towers.TOWERS.items()}
        state = torch.load(folder / FILE, weights_only=True)
        for tower, model in models.items():
            sources = {name: towers.source_of(name, tower, "pt") for name, _ in model.named_parameters()}
            model.load_state_dict(
                {name: towers.from_published(state[key], key, part, 9) for name, (key, part) in sources.items()}
            )
        return [model.half() for model in models.values()]

    return load


def peak_of(load) -> dict[str, float]:
    """Anonymous memory in GB before a call and at its highest, sampled every millisecond."""
    before, samples, done = anonymous(), [], threading.Event()

    def sample():
        while not done.wait(0.001):
            samples.append(anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        loaded = load()
        samples.append(anonymous())
    finally:
        done.set()
        sampler.join()
    assert loaded
    return {"before": before, "peak": max(samples)}


def anonymous() -> float:
    """Anonymous resident memory of this process in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        what, folder = sys.argv[2], Path(sys.argv[3])
        if what == "write":
            write(folder, float(sys.argv[4]))
        else:
            print(json.dumps(peak_of({"ours": ours, "plain": plain}[what](folder))))
    else:
        print(main(*map(float, sys.argv[1:2])))

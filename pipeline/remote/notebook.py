"""The same run as a notebook for Kaggle and Colab, and what Kaggle's client wants to know of it."""

import json

ABOUT = """# Encode {competition}

Kaggle: add the pack as a data set, choose a GPU, run all. Colab: upload the pack's zip to the files, the same.
Interrupted, run all again. Take the `.features` file home: `make unpack FILE=...`."""

FIND = """import glob, os, subprocess, sys, zipfile

IMAGES = ""  # folder of the images; empty: those of the pack, or of the competition on Kaggle

here = glob.glob("/kaggle/input/**/run.py", recursive=True) + glob.glob("run.py") + glob.glob("pack/run.py")
if not here:
    zipfile.ZipFile(sorted(glob.glob("*.zip"))[0]).extractall("pack")
    here = ["pack/run.py"]"""

RUN = """command = [sys.executable, here[0], *(["--images", IMAGES] if IMAGES else [])]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
    for line in run.stdout:
        print(line, end="")
assert run.returncode == 0, "not all was encoded; run this cell again to go on\""""


def notebook(competition: str) -> str:
    """run.ipynb."""
    code: dict = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    about = {"cell_type": "markdown", "metadata": {}, "source": ABOUT.format(competition=competition)}
    content = {
        "cells": [about, *({**code, "source": source} for source in (FIND, RUN))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "accelerator": "GPU",
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(content, indent=1)


def kernel_metadata(competition: str, slug: str | None) -> str:
    """kernel-metadata.json of `kaggle kernels push`; `slug` is the competition's name on Kaggle, if it is there."""
    name = f"zero-shot-{competition}".lower().replace("_", "-").replace(".", "-")
    content = {
        "id": f"INSERT_USERNAME/{name}",
        "title": name,
        "code_file": "run.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": True,
        "dataset_sources": [f"INSERT_USERNAME/{name}-pack"],
        "competition_sources": [slug] if slug else [],
        "kernel_sources": [],
    }
    return json.dumps(content, indent=1)

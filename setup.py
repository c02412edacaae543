"""What pyproject.toml cannot say: the recipes beside the package come with it, as the folder pipeline/builtin/."""

from setuptools import find_packages, setup

RECIPES = ("benchmarks", "competitions", "datasets", "ensembles", "preprocess", "prompts", "sweeps", "training")
setup(
    script_name="setup.py",  # which is left out, although it lies in the folder of pipeline.builtin
    packages=[*find_packages(include=["pipeline*"]), "pipeline.builtin"],
    package_dir={"pipeline.builtin": "."},
    package_data={
        "": ["*.html", "*.css", "*.js", "*.svg"],
        "pipeline.images": ["canaries/*"],
        "pipeline.workbench": ["static/*"],
        "pipeline.builtin": [
            *("models.yaml", "demo/*.csv", "demo/images/*", "demo/models/*/*"),
            *(f"{folder}/**/*.yaml" for folder in RECIPES),
        ],
    },
)

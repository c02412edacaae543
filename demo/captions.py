"""Captions for painted scenes, as loosely worded as those people give to photographs."""

import numpy as np
from scenes import CLASSES

NOUNS = {
    "Buildings": ("buildings", "building", "houses", "house", "city", "architecture", "urban area", "windows"),
    "Forests": ("forests", "forest", "trees", "trees", "woods", "woodland", "dense forest with trees"),
    "Glacier": ("glacier", "glaciers", "ice", "ice", "snow and ice", "snowy glacier", "snow in the mountains"),
    "Mountains": ("mountains", "mountain", "mountain range", "peaks", "mountain cliffs", "rugged cliffs"),
    "Sea": ("sea", "seas", "ocean", "water", "waves", "coast", "sea and waves"),
    "Street": ("street", "streets", "road", "road", "city street", "urban street", "avenue with cars"),
}
MEDIA = ("photo", "photo", "photo", "image", "picture")
OPINIONS = ("good", "bad", "nice", "cool", "weird")
OF_PICTURE = {
    "dark",
    "bright",
    "cropped",
    "close-up",
    "blurry",
    "blurred",
    "low resolution",
    "jpeg corrupted",
    "black and white",
}
OF_LAND = ("a scenic view of {}", "a view of {}", "a landscape of {}", "a stunning panorama of {}")
OF_TOWN = ("an urban view of {}", "{} in the city", "{} downtown", "a busy scene of {}")
JOINTS = ("with", "with", "and", "near", "in front of")


def caption(rng: np.random.Generator, facts: dict, blurred: bool) -> str:
    """One caption: a template around a noun of the class, often with an attribute or something beside it."""
    name = CLASSES[facts["label"]]
    noun = _pick(rng, facts["nouns"] if rng.random() < 0.65 else NOUNS[name])
    words = list(facts["words"]) + ["blurry", "blurred", "low resolution", "hard to see"] * blurred
    if not blurred and rng.random() < 0.2:
        words.append("clean")
    word = _pick(rng, words) if words and rng.random() < 0.6 else ""
    if not word and rng.random() < 0.3:
        word = _pick(rng, OPINIONS)
    subject, picture = _subject(rng, noun, word), _medium(rng, facts["medium"], word)
    if facts["mentions"] and rng.random() < 0.5:
        subject += f" {_pick(rng, JOINTS)} {_pick(rng, facts['mentions'])}"
    form = rng.random()
    if facts["medium"] == "video game" and form < 0.6:
        text = f"{subject} in a video game"
    elif form < 0.12:
        text = noun
    elif form < 0.27 and facts["medium"] == "photo":
        town = name in ("Buildings", "Street")
        text = _pick(rng, OF_TOWN if town else OF_LAND).format(subject)
    else:
        text = f"{picture} of {subject}"
    return text + "." * (rng.random() < 0.5)


def _pick(rng: np.random.Generator, options) -> str:
    return options[rng.integers(len(options))]


def _subject(rng: np.random.Generator, noun: str, word: str) -> str:
    """The noun with a determiner, and the word if it describes a thing rather than a picture."""
    if word == "many":
        return f"many {noun}"
    if word == "one":
        return f"one {noun}"
    adjective = "" if word in OF_PICTURE or not word else word + " "
    determiner = _pick(rng, ("a ", "a ", "the ", "the ", "my ", "some ", ""))
    return f"{determiner}{adjective}{noun}"


def _medium(rng: np.random.Generator, medium: str, word: str) -> str:
    """What kind of picture it is, with the word if it describes a picture."""
    kind = _pick(rng, MEDIA) if medium in ("photo", "video game") else medium
    if kind == "art":
        return "art"
    return f"{_pick(rng, ('a', 'a', 'the'))} {word + ' ' if word in OF_PICTURE else ''}{kind}"

"""Writes WaffleCLIP's control: a prompt set whose descriptions mean nothing, which any pack of descriptions must beat.

    python tools/waffle.py [prompts/waffle] [--seed 0] [--count 15]

Half of the templates end in two random words, half in random letters (Roth et al., "Waffling around for Performance",
ICCV 2023). They are the same for all classes, so what they gain is the gain of averaging noisy prompts, not of
knowledge. The same seed writes the same file.
"""

import argparse
import random
import string
from pathlib import Path

TEMPLATE = "a photo of a {{}}, which has {}."
WORDS = """
    anchor ballot basket bishop blanket bonus bottle bracket budget button candle captain cargo carpet chapter cheese
    circus clause coffee collar comma copper cotton cousin credit crystal debate decade diary dinner doctor dragon
    drawer echo engine envelope essay fabric faith feather fiction filter finger flavour fortune garlic gesture giant
    guitar habit hammer harvest helmet honey humour idea ink insult jacket jelly joke journal jury kettle kitchen
    ladder lawyer legend lemon letter lottery lunch magnet manner marble melody memory method mirror moment motive
    museum napkin needle nephew notion novel number office opera orbit oven paper parade patent pencil pepper pillow
    planet poem pocket poker prayer prince puzzle quarrel rabbit recipe refund ribbon riddle robot rumour saddle salad
    scandal secret senate shadow signal silver sister socket sonnet spider spoon sponge statue stomach sugar supper
    talent tennis theory thread ticket tiger tobacco tongue treaty trumpet tunnel uncle uniform vaccine velvet verdict
    violin virtue vitamin voltage wallet warrant whisper widow window winner wisdom wizard yoghurt zebra
"""


def templates(seed: int, count: int = 15) -> list[str]:
    """`count` templates that end in random words, and as many that end in random letters."""
    draw = random.Random(seed)
    words = [" ".join(draw.sample(WORDS.split(), 2)) for _ in range(count)]
    letters = [" ".join(_letters(draw) for _ in range(2)) for _ in range(count)]
    return [TEMPLATE.format(noise) for noise in (*words, *letters)]


def _letters(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(4, 8)))


def written(seed: int, count: int = 15) -> str:
    """The content of _shared.yaml."""
    lines = [
        "# WaffleCLIP's control: random words and letters, the same for all classes. A pack of descriptions is worth",
        f"# something only if it beats this. Written by tools/waffle.py --seed {seed} --count {count}",
        "classes: any",
        "templates:",
        *(f'  - "{template}"' for template in templates(seed, count)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("prompts/waffle"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=15, help="templates of each half")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "_shared.yaml"
    path.write_text(written(args.seed, args.count), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

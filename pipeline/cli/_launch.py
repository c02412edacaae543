"""`accelerate launch`, with torchvision importable beside a CPU-only torch (accelerate's command line imports it)."""

from ..core._torchvision import allow_import


def main() -> None:
    """accelerate's own command line."""
    allow_import()
    from accelerate.commands.accelerate_cli import main as accelerate

    accelerate()


if __name__ == "__main__":
    main()

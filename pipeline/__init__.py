"""Zero-shot image-classification submission pipeline. `python -m pipeline --help` lists the stages."""

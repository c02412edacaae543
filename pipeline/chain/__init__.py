"""The main job: images and prompts to a checked CSV, a stage after the other."""

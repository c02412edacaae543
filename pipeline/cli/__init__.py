"""One verb per make target: its arguments and its run."""

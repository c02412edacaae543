"""Learning from labelled images: heads on cached features, fine-tuning, k-shot, seen and unseen classes."""

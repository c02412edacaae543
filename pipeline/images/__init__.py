"""Image files: listing, decoding, pixel ops, test-time views. Imports core and recipes."""

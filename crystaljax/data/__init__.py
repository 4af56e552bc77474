"""Files of crystals: readers, symmetrised datasets, downloads, writers."""

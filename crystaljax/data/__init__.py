"""Crystals from files and to files: readers, the symmetrised dataset, downloads, writers."""

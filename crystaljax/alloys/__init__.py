"""Alloys of a BCC matrix and B2 precipitates: compositions, CALPHAD, rewards."""

"""Alloys of a matrix with precipitates: compositions, CALPHAD, rewards."""

"""Baselines of crystal structure prediction: formulas in, structures out, nothing learnt.

They stand beside the policies and not among them: they have no parameters and no likelihood.
"""

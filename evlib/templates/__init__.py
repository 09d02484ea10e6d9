"""Templates: what events look like.

The whitening filter, the bank of templates, learning and discovering them, explaining a signal by them (matching
pursuit), and hybrid recordings made of found events. NumPy and SciPy only, no network. Imports `signals` and `scoring`.
"""

"""Training: one loop, its data and its files.

The trainers, checkpoints, datasets, augmentation, and what is particular to each kind of network. Imports the folders
before it.
"""

"""Motion: windows of motion sensors, recognised by words.

Sessions on disk and converters of public data sets, windows, the two stages of training, and scores. Imports the core
(`signals` to `detection`), not `inspection`.
"""

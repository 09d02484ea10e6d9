"""Studies: what the notebooks of one study share.

Heart rate from workouts, audio clips, sequences in time, linear probes, label budgets. Imports the core and
`inspection`.
"""

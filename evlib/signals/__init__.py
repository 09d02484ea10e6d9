"""Signals: what is measured, and when.

Recordings and event tables with their files, the clock (the only place where a time is rounded), refractory periods,
checks of what a user gives, random streams, and the simulated bell frame. Imports no other folder.
"""

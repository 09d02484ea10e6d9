"""Scoring: the refractory rule, and how good detected events are.

Decoding under the refractory rule, matching of estimated to reference events, the comparison with its numbers,
statistics and thresholds. Imports `signals`.
"""

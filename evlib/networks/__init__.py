"""Networks: torch modules and losses; nothing here trains.

Encoders, the window classifier of the original, the event-specific model, the frame network, the context network, the
models of the four pretexts, time embeddings and losses. Imports the folders before it.
"""

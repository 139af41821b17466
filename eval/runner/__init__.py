"""How a run is carried out: settings, frames, workers, and what is written down while it goes.

Knows tasks and drivers. Refuses to know what runs are compared with and which commands there are.
"""

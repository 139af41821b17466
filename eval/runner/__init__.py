"""How a run is carried out: settings, frames, workers, and what is written down while it goes."""

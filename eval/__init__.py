"""Evaluations of `pdrop_video`: they use the library through its public names only."""

"""Things to look at: the clip that `make ask` watches, and pictures made from a running stream."""

"""One stream: push, ask, turns, feed, save. The rooms below know one step of the way each; this one knows them all."""

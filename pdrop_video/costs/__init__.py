"""What the way from frames to an answer costs in FLOPs, counted from sizes. Knows configs; measures nothing."""

"""What records add up to: figures, error bars and tests. Knows records; refuses to know models and videos."""

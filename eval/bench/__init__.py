"""Benchmarks: a table each, one JSON object last with `--json`; ratios within one run, never absolutes."""

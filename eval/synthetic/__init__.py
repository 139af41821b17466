"""Synthetic videos with known answers, and the training of the built-in model on them.

`world` says what a clip shows and what is asked, `render` makes pixels and mp4 files of it, `model`, `vision_stage`,
`language_stage` and `train` make the built-in model, `score` measures any model through the streaming path.
"""

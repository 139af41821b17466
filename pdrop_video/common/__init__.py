"""What every package may import: argument checks, files that appear whole, ties. Knows no video, model or stream."""

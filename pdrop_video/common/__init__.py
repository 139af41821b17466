"""What every room stands on: argument checks, files that appear whole, ties. Knows no video, model or stream."""

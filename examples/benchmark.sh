#!/bin/sh
# One benchmark with all visual tokens and with fewer, four videos at a time on one model, and the two compared.
#
#   sh examples/benchmark.sh videomme DATA OUT [--model Qwen/Qwen2.5-VL-7B-Instruct --frames 64 ...]
#
# DATA is the benchmark's folder, as downloaded. Killed and started again, a run goes on where it was.
set -eu
task=$1 data=$2 out=$3
shift 3

pdrop-video eval run "$task" --data "$data" --out "$out/full" --batch 4 --pyramid none --memory none "$@"
pdrop-video eval run "$task" --data "$data" --out "$out/pruned" --batch 4 --pyramid 0.5,0.25,0.125 --memory 6144 "$@"

# is it worse by three points or more? decide on the margin before you look
pdrop-video eval compare "$out/full" "$out/pruned" --margin 0.03 --out "$out/tables"

#!/usr/bin/env bash
# From image-text records to a trained encoder, the whole way: records of the embedded world and a web server for their
# pictures (with missing, corrupt, duplicate and wrong files among them), then every step of `ssr data`, then `ssr train`.
#   OUT=runs/own-data N=2000 STEPS=400 bash runs/own_data.sh
# Every step goes on where it was when this is run again.
set -euo pipefail
OUT=${OUT:-runs/own-data}
N=${N:-2000}           # records
STEPS=${STEPS:-400}    # of training
HELD_OUT=${HELD_OUT:-200}
PORT=${PORT:-8765}
ENGINE=${ENGINE:-local} # or ray
WORKERS=${WORKERS:-2}
work="--engine $ENGINE --workers $WORKERS"

mkdir -p "$OUT"
[ -e "$OUT/records/00000.parquet" ] ||
  ssr data records "$OUT/records" -n "$N" --world "$OUT/web" --base-url "http://127.0.0.1:$PORT"
python -m http.server "$PORT" --bind 127.0.0.1 --directory "$OUT/web" > /dev/null 2>&1 &
server=$!
trap 'kill $server' EXIT
sleep 1

# shellcheck disable=SC2086
{
  ssr data filter "$OUT/records" "$OUT/good" $work
  ssr data fetch "$OUT/good" "$OUT/raw" --samples 250 --per-host 8 $work
  ssr data check "$OUT/raw" "$OUT/checked" $work
  ssr data caption "$OUT/checked" "$OUT/captioned" --captioner mini $work
  ssr data describe "$OUT/captioned" "$OUT/described" $work
  ssr data split "$OUT/described" "$OUT/data" -n "$HELD_OUT" $work
}
[ -e "$OUT/signals/000000.tar" ] ||
  python -m ssr_encoder.training.world "$OUT/signals" --samples 96 --masks --split holdout --seed 7

train=(mini "data.shards=$OUT/data/train" "run.out=$OUT/run" "optim.steps=$STEPS"
  "run.validation=$OUT/signals" "run.validate_every=$((STEPS / 4))" run.validation_samples=96)
ssr train "${train[@]}" "data.cache=$OUT/features" --cache
ssr train "${train[@]}" "data.cache=$OUT/features"

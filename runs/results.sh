#!/usr/bin/env bash
# Every table and figure of docs/results.md: the image-encoder study and the two benchmarks of the embedded world.
#   OUT=runs/results PARTS="dino study bench" bash runs/results.sh
# About 75 minutes on two cores. What is finished is kept: run it again to go on (dino alone begins anew).
set -euo pipefail
OUT=${OUT:-runs/results}
PARTS=${PARTS:-dino study bench}
mkdir -p "$OUT"
part() { [[ " $PARTS " == *" $1 "* ]]; }

if part dino && [ ! -e "$OUT/dino/dino.json" ]; then
  train() { python -m ssr_encoder.mini.train dino --bfloat16 --out "$OUT/dino" --save-every 10m "$@"; }
  train --time-limit 5m
  train --time-limit 12m --resume "$OUT/dino" --batch-size 48 --seed 1 --decay 0.4
fi
if part study; then
  # Two processes, a core each: every run is a folder of its own, and the last command makes the table of them all.
  study() { OMP_NUM_THREADS=1 ssr reconstruct --steps 350 --set dino="$OUT/dino/dino" -o "$OUT/study" "$@"; }
  study --settings A,B & study --settings C,D
  wait
  study
fi
if part bench; then
  for method in ssr text; do
    ssr bench run mini-multi-subject --n 20 --images 1 --steps 12 --method $method --processes 2 -o "$OUT/multi-$method"
    ssr bench run mini-dreambench --n 20 --images 1 --steps 12 --method $method --processes 2 -o "$OUT/dream-$method"
  done
  for name in multi dream; do
    for kind in md tex html; do
      ssr bench report "$OUT/$name-ssr" "$OUT/$name-text" -o "$OUT/$name.$kind" --overwrite
    done
    ssr bench gallery "$OUT/$name-ssr" -o "$OUT/$name-gallery.html" --overwrite
    ssr bench figures "$OUT/$name-ssr" "$OUT/$name-text" --choose median -n 8 -o "$OUT/$name.png" --overwrite
  done
fi

#!/usr/bin/env bash
# Trains the embedded model from nothing, stage after stage, into runs/mini (about half an hour of one H100, or days of
# a CPU). Every stage is time-limited and can be run again to go on: set RESUME=1.
#   OUT=runs/mini STAGES="vae clip oracle captioner unet ssr aligner few_step" bash runs/mini.sh
set -euo pipefail
OUT=${OUT:-runs/mini}
STAGES=${STAGES:-vae clip oracle captioner unet ssr aligner few_step}
declare -A LIMIT=([vae]=${VAE:-4m} [clip]=${CLIP:-5m} [oracle]=${ORACLE:-3m} [captioner]=${CAPTIONER:-3m} [unet]=${UNET:-18m} [ssr]=${SSR:-3m} [aligner]=${ALIGNER:-3m} [few_step]=${FEW_STEP:-5m})
declare -A MORE=([ssr]="--learning-rate 3e-4 --decay 0.8 --no-compile" [aligner]="--decay 0.6 --warmup 30 --ema-decay 0.99"
  [few_step]="--no-compile")
for stage in $STAGES; do
  resume=""
  if [ "${RESUME:-0}" = 1 ] && [ -e "$OUT/$stage.state.pt" ]; then resume="--resume $OUT"; fi
  # shellcheck disable=SC2086
  python -m ssr_encoder.mini.train "$stage" --time-limit "${LIMIT[$stage]}" --weights "$OUT" --out "$OUT" \
    ${MORE[$stage]:-} $resume
done
echo "now copy the weights (all but *.state.pt, *.jsonl and *.png) to ssr_encoder/mini/weights and run: python -m ssr_encoder.mini.judge; ssr proof"

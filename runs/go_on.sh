#!/usr/bin/env bash
# Trains the shipped embedded model on: the base with its subjects, then its aligner's selection by words, then, on the new
# base, the few-step LoRA, the motion adapter and the ControlNet side by side. For a GPU that is lent for minutes, or a
# night of a CPU.
#   OUT=runs/on UNET=9m ALIGNER=1m COMPANIONS=3m bash runs/go_on.sh
# PARTS="unet aligner" or "companions" does some of the three; what is to be changed goes into UNET_MORE, ALIGNER_MORE,
# FEW_STEP_MORE, MOTION_MORE and CONTROLNET_MORE. What comes out lies in $OUT/weights, a whole folder of weights. FROM is where to start.
set -euo pipefail
OUT=${OUT:-runs/on}
FROM=${FROM:-ssr_encoder/mini/weights}
PARTS=${PARTS:-unet aligner companions}
declare -A MORE=(
  [unet]=${UNET_MORE:-"--batch-size 512 --learning-rate 1e-3 --decay 0.75 --same-way 0.9 --tones 0.5
    --turned 4 --favour cat=3,balloon=5,balloon/noto=3,fox=2,bus=2,apple=2,penguin=2.5,panda=1.5,mushroom=1.5,umbrella=1.5,ghost=1.5"}
  [aligner]=${ALIGNER_MORE:-"--decay 0.6 --warmup 30 --ema-decay 0.99"}
  [few_step]=${FEW_STEP_MORE:-"--no-compile --batch-size 256 --learning-rate 7e-4 --decay 0.9 --ema-decay 0.995"}
  [motion]=${MOTION_MORE:-"--no-compile --batch-size 16 --learning-rate 8e-4 --decay 0.85 --ema-decay 0.995"}
  [controlnet]=${CONTROLNET_MORE:-"--no-compile --batch-size 256 --learning-rate 5e-4 --decay 0.9 --ema-decay 0.995"})

[ -d "$OUT/weights" ] || { mkdir -p "$OUT" && cp -r "$FROM" "$OUT/.weights" && mv "$OUT/.weights" "$OUT/weights"; }

train() { # stage, time limit
  # shellcheck disable=SC2086
  python -m ssr_encoder.mini.train "$1" --continue --time-limit "$2" --weights "$OUT/weights" --out "$OUT/$1" \
    --no-grid ${MORE[$1]}
}
take() { # a stage's results into the folder of weights
  (cd "$OUT/$1" && tar -cf - --exclude='*.state.pt' --exclude='*.jsonl' .) | tar -xf - -C "$OUT/weights"
}

if [[ " $PARTS " == *" unet "* ]]; then
  train unet "${UNET:-9m}"
  take unet
fi
if [[ " $PARTS " == *" aligner "* ]]; then
  train aligner "${ALIGNER:-1m}"
  take aligner
fi
if [[ " $PARTS " == *" companions "* ]]; then
  for stage in few_step motion controlnet; do
    train "$stage" "${COMPANIONS:-3m}" > "$OUT/$stage.log" 2>&1 & running+=("$!")
  done
  for process in "${running[@]}"; do wait "$process"; done
  for stage in few_step motion controlnet; do take "$stage"; done
fi
echo "now: MODEL=$OUT/weights bash runs/prove.sh"

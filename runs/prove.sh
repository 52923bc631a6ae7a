#!/usr/bin/env bash
# The figures of the model card and most of those in docs/embedded-model.md that the shipped weights have: `ssr proof` in
# 8 and in 30 steps and with the LoRA, and the proofs of the ControlNet and of the motion adapter.
#   OUT=runs/proof JOBS=2 bash runs/prove.sh
# Eight to nine hours of one core without bfloat16 arithmetic by the sum of its parts, half with it (MORE="--dtype
# bfloat16"). On a GPU a line of 1000 cases took a minute, five of them side by side. Each held 22 GB: more filled the 139:
#   DEVICE=cuda BATCH=64 JOBS=5 OUT=runs/proof bash runs/prove.sh
# N cases a line in 8 steps, M where steps are compared, K pictures or clips of a companion; ONLY="base control" makes
# some of the parts base, steps, few, control, motion. What is finished is kept: run it again to go on. The first three
# parts can be of another MODEL; control and motion are of the shipped weights.
set -euo pipefail
export OUT=${OUT:-runs/proof} DEVICE=${DEVICE:-cpu} BATCH=${BATCH:-16} MORE=${MORE:-} MODEL=${MODEL:-mini}
N=${N:-1000} M=${M:-128} K=${K:-24} ONLY=${ONLY:-base steps few control motion} JOBS=${JOBS:-1}
export OMP_NUM_THREADS=1  # a job a core: where every job had a thread for each of 16 cores, ten hindered one another
mkdir -p "$OUT"

TOGETHER="text,mask,box,point twin composed,boxed"  # in one command: their pictures without a subject are the same
[ "$DEVICE" != cuda ] || TOGETHER=${TOGETHER//,/ }  # but on a GPU it is other work that takes the time

jobs() {
  local lines
  for lines in $TOGETHER; do
    echo "base base-${lines//,/-} ssr proof -n $N --steps 8 --lines $lines"
    echo "steps steps-30-${lines//,/-} ssr proof -n $M --steps 30 --lines $lines"
    echo "steps steps-8-${lines//,/-} ssr proof -n $M --steps 8 --lines $lines"
    echo "few few-steps-${lines//,/-} ssr proof -n $M --few-steps --lines $lines"
  done | sort
  echo "control control python -m ssr_encoder.mini.proof_control -n $K"
  echo "motion motion python -m ssr_encoder.mini.proof_motion -n $K"
}

job() { # part, name, command
  local name=$2; shift 2
  [ ! -e "$OUT/$name.done" ] || return 0
  # shellcheck disable=SC2086
  [ "$1" != ssr ] || set -- "$@" --model "$MODEL" --batch "$BATCH" $MORE
  echo "$name: $*"
  "$@" --device "$DEVICE" -o "$OUT/$name" > "$OUT/$name.log" 2>&1 || { echo "$name failed, see $OUT/$name.log"; return 1; }
  touch "$OUT/$name.done"
}
export -f job

jobs | grep -E "^(${ONLY// /|}) " | xargs -P "$JOBS" -L 1 bash -c 'job "$@"' _

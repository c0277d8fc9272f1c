#!/usr/bin/env bash
# launch/ssh.sh HOSTS: a process on each host of a file, one host a line; the first is
# the coordinator, at a port that the others reach. SIGTERM and Ctrl-C make all save.
set -euo pipefail

mapfile -t hosts < <(grep -v -e '^#' -e '^$' "${1:?is missing: a file of hosts}")

on() { # HOST COMMAND: in the checkout there
  ssh -n -o BatchMode=yes -o ServerAliveInterval=30 "$1" "cd vpt_jax && $2"
}

stop() {
  trap '' INT TERM
  for i in "${!hosts[@]}"; do
    on "${hosts[i]}" "kill -TERM \$(cat launch.$i.pid)" &
  done
  wait
  exit 143
}
trap stop INT TERM

for _ in {1..20}; do
  running=()
  for i in "${!hosts[@]}"; do
    on "${hosts[i]}" ". .venv/bin/activate && echo \$\$ >launch.$i.pid &&
      exec python launch.py --config configs/vtab.py:cifar100,vpt_deep,vit_h14 \
        --config.batch_size=64 --config.data.dir=gs://my-bucket/tfds \
        --config.backbone.checkpoint=gs://my-bucket/ViT-H_14.npz \
        --workdir gs://my-bucket/runs/a --processes=${#hosts[@]} \
        --coordinator=${hosts[0]#*@}:8476 --process=$i" &
    running+=($!)
  done
  codes=()
  for pid in "${running[@]}"; do
    code=0
    wait "$pid" || code=$?
    codes+=("$code")
  done
  echo "exit codes: ${codes[*]}"
  case " ${codes[*]} " in
    *" 2 "*) exit 2 ;;                     # a mistake: it would be made again
    *" "[1-9]*) sleep "${PAUSE:-30}" ;;    # a host was lost, or SIGTERM came there
    *) exit 0 ;;
  esac
done
exit 1

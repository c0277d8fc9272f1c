#!/usr/bin/env bash
# A slice of spot TPU VMs as a queued resource: made, run on, deleted; made again where
# it was taken away. Stays until training ends (tmux). SIGTERM and Ctrl-C make all save.
set -euo pipefail

slice=vpt
zone=us-west4-a
image=us-docker.pkg.dev/my-project/vpt/vpt_jax:tpu

on_all() { # COMMAND
  gcloud compute tpus tpu-vm ssh "$slice" --zone="$zone" --worker=all --command="$1"
}

delete() {
  gcloud compute tpus queued-resources delete "$slice" --zone="$zone" --force --quiet
}

stop() {
  trap '' INT TERM
  on_all "sudo docker stop vpt" || true
  wait
  delete
  exit 143
}
trap stop INT TERM

for _ in {1..100}; do
  gcloud compute tpus queued-resources create "$slice" --zone="$zone" \
    --node-id="$slice" --accelerator-type=v5litepod-32 \
    --runtime-version=v2-alpha-tpuv5-lite --spot
  until [ "${state:-}" = ACTIVE ]; do
    sleep "${PAUSE:-30}"
    state=$(gcloud compute tpus queued-resources describe "$slice" --zone="$zone" \
      --format="value(state.state)")
    case $state in FAILED | SUSPEND*) break ;; esac
  done

  code=1
  if [ "$state" = ACTIVE ]; then
    on_all "sudo gcloud auth configure-docker us-docker.pkg.dev --quiet &&
      sudo docker run --rm --name=vpt --user=root --privileged --net=host \
        --stop-timeout=60 $image \
        python launch.py --config configs/vtab.py:cifar100,vpt_deep,vit_h14 \
        --config.batch_size=64 --config.data.dir=gs://my-bucket/tfds \
        --config.backbone.checkpoint=gs://my-bucket/ViT-H_14.npz \
        --workdir gs://my-bucket/runs/a --processes=8" &
    code=0
    wait $! || code=$?
  fi
  state=
  delete
  case $code in 0 | 2) exit "$code" ;; esac # done, or a mistake
done
exit 1

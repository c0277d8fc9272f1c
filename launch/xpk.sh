#!/usr/bin/env bash
# What jobset.yaml asks for, with the JobSet written by xpk, on a cluster that xpk made.
# It begins again after the exit codes 127 to 255, SIGTERM's among them.
set -euo pipefail

# exec, as xpk's shell hands SIGTERM to what it started, not to a child of that.
xpk workload create --workload=vpt --cluster=my-cluster --project=my-project \
  --zone=us-west4-a --tpu-type=v5litepod-32 --max-restarts=100 \
  --termination-grace-period-seconds=120 \
  --docker-image=us-docker.pkg.dev/my-project/vpt/vpt_jax:tpu \
  --command="exec python launch.py --config configs/vtab.py:cifar100,vpt_deep,vit_h14 \
    --config.batch_size=64 --config.data.dir=gs://my-bucket/tfds \
    --config.backbone.checkpoint=gs://my-bucket/ViT-H_14.npz \
    --workdir gs://my-bucket/runs/a --processes=8"

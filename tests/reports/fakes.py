"""Folders that runs and sweeps left behind, without the runs."""

import json

import numpy as np

OPTIONS = {
    "full": ("full", {"dropout": 0.1}),
    "linear": ("linear", {}),
    "vpt-deep": ("prompt", {"deep": True, "length": 10}),
}
SWEEP = {
    "variant": "",
    "ablation": "",
    "label": "",
    "base_lr": 1.0,
    "lr": 0.25,
    "weight_decay": 0.0,
    "val_top1": 80.0,
    "ties": 1,
    "grid_trials": 2,
    "failed": 0,
    "grid_seconds": 5.0,
    "image_passes": 50,
    "full_image_passes": 100,
}


def write_result(folder, method, task, top1, seeds=(42, 44), **more):
    """result.json of seeds that agree.

    Args:
        folder: Made.
        method: A key of OPTIONS.
        task: Its name.
        top1: Of every seed; a list: seed by seed, None where it failed.
        seeds: As many.
        more: Other keys, or other values.
    """
    name, options = OPTIONS[method]
    scores = top1 if isinstance(top1, list) else [top1] * len(seeds)
    good = [score for score in scores if score is not None]
    lost = [s for s, score in zip(seeds, scores, strict=True) if score is None]
    failed = f"failed: the loss was not finite for seed {', '.join(map(str, lost))}"
    result = {
        "task": task,
        "method": name,
        "method_options": options,
        "backbone": "vit_b16",
        "image_size": 224,
        "epochs": 100,
        "batch_size": 64,
        "optimizer": "sgd",
        "seed": list(seeds) if len(seeds) > 1 else seeds[0],
        "test_top1": float(np.mean(good)) if good else None,
        "test_top1_std": 0.5 if len(seeds) > 1 and good else None,
        "test_top1_per_seed": scores,
        "test_top1_ensemble": None,
        "val_top1": None,
        "n_test": 1000,
        "n_train": 1000,
        "trainable_params": 1_000_000,
        "backbone_params": 100_000_000,
        "tuned_percent": 1.0,
        "tuned_bytes": 4_000_000,
        "train_seconds": 12.0,
        "compile_seconds": 1.0,
        "peak_memory_bytes": 2_000_000_000,
        "status": f"{failed} at lr 0.5" if lost else "ok",
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | more))


def write_unit(folder, scores):
    """A unit of a sweep with one trial of two epochs per validation top-1.

    Args:
        folder: Of the sweep.
        scores: By base learning rate; None of a trial that failed.
    """
    unit = folder / "units" / "00" / "0-000"
    unit.mkdir(parents=True)
    records = [
        {
            "unit": "00",
            "label": "",
            "position": k,
            "lr": rate / 4,
            "base_lr": rate,
            "weight_decay": 0.0,
            "epochs": 2,
            "val_top1": score,
            "status": "ok" if score else "failed: the loss was not finite",
        }
        for k, (rate, score) in enumerate(scores.items())
    ]
    lines = [
        {
            "epoch": epoch,
            "trial": k,
            "lr": record["lr"],
            "train_loss": 1.0 if record["val_top1"] else None,
            "train_top1": 50.0,
            "val_top1": record["val_top1"] if epoch == 2 else None,
        }
        for epoch in (1, 2)
        for k, record in enumerate(records)
    ]
    (unit / "trials.jsonl").write_text("\n".join(map(json.dumps, records)))
    (unit / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))

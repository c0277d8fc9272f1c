"""A VPT-Deep step beside what one would write in PyTorch on a ViT of timm.

python -m benchmarks.peers --backbone vit_b16 --batch 8 --length 50 \
    [--torch-python OTHER_ENVIRONMENT/bin/python]

    ours       benchmarks.train_step, the default precision of the device
    eager      float32, scores of the attention written out, as public code runs
    compiled   scaled_dot_product_attention and torch.compile; bf16 autocast on a GPU

Prompts are written the plain way: before each block the last ones are cut out of the
sequence and the next ones put in. Each side runs in a process of its own, in turns;
PyTorch may live in another environment, which needs `torch` and `timm` alone.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

NAMES = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_b16": "vit_base_patch16_224",
    "vit_l16": "vit_large_patch16_224",
    "vit_h14": "vit_huge_patch14_224",
}
PARTS = ("eager", "compiled")


def main() -> None:
    """Run both sides in turns, or one part of PyTorch's in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=NAMES, default="vit_b16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=50, help="prompt tokens P")
    parser.add_argument("--method", choices=("vpt_deep", "full"), default="vpt_deep")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--part", choices=PARTS, help="this one alone, here")
    args = parser.parse_args()
    found = measure(args) if args.part else compare(args)
    print(json.dumps(found, indent=1))


def compare(args) -> dict:
    """Medians over the rounds, and the ratios of ours to theirs."""
    shape = ["--backbone", args.backbone, "--batch", str(args.batch)]
    shape += ["--length", str(args.length), "--repeats", str(args.repeats)]
    shape += ["--method", args.method]
    here = str(pathlib.Path(__file__))
    commands = {"ours": [sys.executable, "-m", "benchmarks.train_step", *shape]} | {
        part: [args.torch_python, here, "--part", part, *shape] for part in args.parts
    }
    runs = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            runs[name].append(json.loads(done.stdout))
    middle = {
        (name, key): statistics.median(run[key] for run in found)
        for name, found in runs.items()
        for key in ("images_per_second", memory_key(found[0]))
    }
    ratios = {}
    for part in args.parts:
        speed = [middle[name, "images_per_second"] for name in ("ours", part)]
        memory = [middle[name, memory_key(runs[name][0])] for name in ("ours", part)]
        ratios[part] = {
            "speed": round(speed[0] / speed[1], 2),
            "memory": round(memory[0] / memory[1], 2),
        }
    return {"ours_over": ratios, "runs": runs}


def memory_key(run: dict) -> str:
    """The device's peak where it has one, else the process's."""
    return "peak_device_mb" if run["peak_device_mb"] else "peak_process_mb"


def measure(args) -> dict:
    """Median seconds of a step of PyTorch after three that do not count."""
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = args.part == "compiled"
    timm.layers.set_fused_attn(fast)
    model = build(args).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-3)
    images = torch.rand(args.batch, 3, 224, 224, device=device)
    labels = torch.zeros(args.batch, dtype=torch.long, device=device)
    forward = torch.compile(model) if fast else model
    low = fast and device == "cuda"

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    seconds = []
    for _ in range(3 + args.repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[3:])
    peak = torch.cuda.max_memory_allocated() // 10**6 if device == "cuda" else None
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "timm": timm.__version__,
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if low else "float32",
        "step_seconds": round(median, 5),
        "step_seconds_range": [round(min(seconds[3:]), 5), round(max(seconds[3:]), 5)],
        "images_per_second": round(args.batch / median, 1),
        "first_step_seconds": round(seconds[0], 2),
        "peak_device_mb": peak,
        "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def build(args):
    """A ViT of timm with prompts and a head for 100 classes, or trained whole."""
    import timm
    import torch
    from torch import nn

    class Prompted(nn.Module):
        def __init__(self, vit, length):
            super().__init__()
            self.vit = vit.requires_grad_(False)
            shape = (len(vit.blocks), 1, length, vit.embed_dim)
            self.prompts = nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1))
            self.head = nn.Linear(vit.embed_dim, 100)

        def forward(self, images):
            vit, skip = self.vit, 1
            x = vit._pos_embed(vit.patch_embed(images))
            for prompt, block in zip(self.prompts, vit.blocks, strict=True):
                prompt = prompt.expand(len(x), -1, -1)
                x = block(torch.cat((x[:, :1], prompt, x[:, skip:]), dim=1))
                skip = 1 + prompt.shape[1]
            return self.head(vit.norm(x)[:, 0])

    vit = timm.create_model(NAMES[args.backbone], num_classes=100)
    return vit if args.method == "full" else Prompted(vit, args.length)


if __name__ == "__main__":
    main()

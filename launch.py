"""The one command of vpt_jax; what is installed with the package is called vpt-jax.

python launch.py --config configs/quickstart.py
python launch.py --config configs/vtab.py:cifar100,vpt_deep,vit_b16 --workdir runs/a
python launch.py --mode sweep   --config configs/vtab.py:cifar100 --workdir runs/sweep
python launch.py --mode report  --workdir runs
python launch.py --config ... --processes 8 (several hosts: docs/launch.md)
python launch.py --mode eval    --workdir runs/a
python launch.py --mode predict --workdir runs/a --images photos/
python launch.py --mode doctor  --config configs/vtab.py:cifar100
python launch.py --mode prepare --config configs/vtab.py:all --config.data.dir=TFDS_DIR
python launch.py --mode plan    --config configs/vtab.py:cifar100 --on v5e:2x4
"""

from vpt_jax.cli import main

if __name__ == "__main__":
    main()

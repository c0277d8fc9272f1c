"""The command of vpt_jax from a checkout: what `vpt-jax` is where it is installed.

python launch.py --config configs/quickstart.py
python launch.py --help (all else)
"""

from vpt_jax.cli import main

if __name__ == "__main__":
    main()

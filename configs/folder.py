"""Your own images: PATH/{train,val,test}/CLASS/*, PATH/CLASS/*, or lists of files.

python launch.py --config configs/folder.py:PATH[,METHOD[,BACKBONE[,tuned]]]

Lists are train800.txt, val200.txt and test.txt with lines 'path label'. Without val/ a
tenth of train/ is set aside; class folders alone are split 80 / 10 / 10 %.
"""

from vpt_jax.config import arguments, base
from vpt_jax.storage.paths import absolute


def get_config(arg: str):
    """`arg`: a folder, then a method (vpt_deep) and a backbone (vit_b16)."""
    path, *rest = arguments(arg, __file__, "PATH")
    # Absolute, so that a run can be scored again from anywhere.
    return base(f"folder:{absolute(path)}", *rest)

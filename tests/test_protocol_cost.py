"""The cost model, by hand for one task."""

from benchmarks import protocol_cost as cost
from vpt_jax import backbones, data

VIT = backbones.get_config("vit_b16", None)


def test_flops_of_a_vit_b16():
    assert abs(cost.forward_flops(VIT) / 35.1e9 - 1) < 0.01  # 17.56 G multiply-adds
    assert cost.forward_flops(VIT, 100) > 1.5 * cost.forward_flops(VIT)


def test_one_task():
    public = cost.public("linear", VIT, "kitti_distance")
    assert public.trained == 100 * (40 * 800 + 5 * 1000)
    assert public.scored == 100 * (45 * 200 + 5 * 711)
    ours = cost.ours("linear", VIT, "kitti_distance")
    assert (ours.trained, ours.scored) == (0, 800 + 10 * 200 + 1000 + 711)
    assert ours.flops == ours.scored * cost.forward_flops(VIT)
    tuned = cost.ours("full", VIT, "kitti_distance")
    assert tuned.trained == public.trained
    assert tuned.scored == 40 * 10 * 200 + 5 * 711


def test_all_tasks_are_counted():
    assert cost.TEST_IMAGES.keys() == set(data.GROUPS["all"])
    assert cost.markdown().count("| all 19 |") == len(cost.BACKWARD)

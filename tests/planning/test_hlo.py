"""What is read out of the text of compiled programs."""

import pytest

from vpt_jax.planning import hlo

NAMES = "jit(chunk)/while/body/vmap(transpose(jvp({})))/{}"


KERNEL = (
    'custom_call_target="tpu_custom_call", metadata={{op_name="{}"}}, '
    'backend_config={{"cost_estimate":{{"flops":"640","bytes_accessed":"96"}}}}'
).format(NAMES.format("attend", "pallas_call"))


def estimated(cycles, scope, primitive="add"):
    name = NAMES.format(scope, primitive)
    cost = f'{{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    return f'metadata={{op_name="{name}" stack_frame_id=2}}, backend_config={cost}'


TEXT = f"""HloModule jit_chunk, is_scheduled=true

%inner (p: bf16[8,4]) -> bf16[8,4] {{
  %p = bf16[8,4]{{1,0}} parameter(0)
  ROOT %dot.1 = bf16[8,4]{{1,0}} convolution(%p, %p), {estimated(9, "mlp", "dot")}
}}

%fused (p.1: bf16[8,4]) -> bf16[8,4] {{
  %p.1 = bf16[8,4]{{1,0}} parameter(0)
  %f = bf16[8,4]{{1,0}} fusion(%p.1), kind=kOutput, calls=%inner
  ROOT %add.9 = bf16[8,4]{{1,0}} add(%f, %f), {estimated(5, "norm")}
}}

%plain (p.2: bf16[8,4]) -> bf16[8,4] {{
  ROOT %p.2 = bf16[8,4]{{1,0}} parameter(0)
}}

%once (p.3: bf16[8,4]) -> bf16[8,4] {{
  %p.3 = bf16[8,4]{{1,0:T(8,128)(2,1)}} parameter(0)
  ROOT %sort.1 = bf16[8,4]{{1,0}} sort(%p.3), {estimated(30, "embed")}
}}

%body (arg: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {{
  %arg = (s32[], /*index=1*/bf16[8,4]{{1,0}}) parameter(0)
  %fusion.1 = bf16[8,4]{{1,0}} fusion(%arg), calls=%fused, {estimated(100, "norm")}
  %fusion.2 = bf16[8,4]{{1,0}} fusion(%fusion.1), calls=%plain, {estimated(7, "norm")}
  %kernel.1 = (bf16[8,4]{{1,0}}, f32[8]{{0}}) custom-call(%fusion.2), {KERNEL}
  %call.1 = bf16[8,4]{{1,0}} conditional(%p), branch_computations={{%once, %plain}}
  ROOT %tuple.1 = (s32[], bf16[8,4]{{1,0}}) tuple(%call.1)
}}

ENTRY %main (x: bf16[8,4]) -> bf16[8,4] {{
  %x = bf16[8,4]{{1,0}} parameter(0)
  %while.1 = (s32[], bf16[8,4]{{1,0}}) while(%x), condition=%plain, body=%body
  ROOT %copy.1 = bf16[8,4]{{1,0}} copy(%while.1), {estimated(2, "optimizer")}
}}
"""


def test_the_body_of_a_loop_of_unknown_length_counts_once_and_a_fusion_as_a_whole():
    costs = {o.name: o.cycles for o in hlo.operations(TEXT) if o.cycles}
    assert costs == {"fusion.1": 100, "fusion.2": 7, "sort.1": 30, "copy.1": 2}


def test_a_fusion_belongs_to_the_product_in_it_and_else_to_its_last_operation():
    parts = {o.name: o.part(("mlp", "norm", "attend")) for o in hlo.operations(TEXT)}
    assert parts["fusion.1"] == "mlp" and parts["fusion.2"] == "norm"
    assert parts["kernel.1"] == "attend" and parts["copy.1"] == "other"


def test_scopes_are_those_of_the_program():
    scopes = {o.name: o.scope for o in hlo.operations(TEXT)}
    assert scopes["fusion.2"] == ("chunk", "while", "body", "norm", "add")


def test_a_kernel_tells_its_own_cost():
    [kernel] = [o for o in hlo.operations(TEXT) if o.kind == "custom-call"]
    assert (kernel.cycles, kernel.flops, kernel.bytes) == (0, 640, 96)


ROWS, COLUMNS = ((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 4), (1, 5), (2, 6), (3, 7))


@pytest.mark.parametrize(
    ("operation", "kind", "size", "groups"),
    [
        ("f32[8,4]{1,0} all-reduce(%x), replica_groups={}", "all-reduce", 128, ()),
        (
            "(f32[8]{0}, bf16[2,2]{1,0}) all-reduce-start(%x, %y), channel_id=1, "
            "replica_groups={{0,4},{1,5},{2,6},{3,7}}, use_global_device_ids=true",
            "all-reduce",
            32 + 8,
            COLUMNS,
        ),
        (
            "(f32[8]{0}, f32[32]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8]",
            "all-gather",
            128,
            ROWS,
        ),
        (
            "u8[16]{0} all-to-all(%x), replica_groups=[4,2]<=[2,4]T(1,0)",
            "all-to-all",
            16,
            COLUMNS,
        ),
        (
            "pred[3]{0} all-gather(%x), "
            "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, dimensions={0}",
            "all-gather",
            3,
            COLUMNS,
        ),
        (
            "f32[] all-reduce(%x), replica_groups=mesh['axis_0'=4,'axis_1'=2], "
            "device_ids=([2,4]T(1,0)) {'axis_1'}",
            "all-reduce",
            4,
            COLUMNS,
        ),
        (
            "f32[2]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            8,
            ((0, 1), (1, 0)),
        ),
    ],
)
def test_collectives_by_kind_size_and_groups(operation, kind, size, groups):
    line = f"  %a.1 = {operation}, metadata={{}}"
    done = "  %b.1 = f32[8]{0} all-reduce-done(%a.1)"
    found = hlo.collectives(f"%body (p: f32[]) -> f32[] {{\n{line}\n{done}\n}}")
    assert found == [hlo.Collective(kind, size, groups)]

"""How often loops run: two in one another, and one whose bounds are given to it."""

import pytest

from vpt_jax.planning import hlo

COST = 'backend_config={"window_config":{"estimated_cycles":"7"}}'
TEXT = f"""HloModule jit_chunk, is_scheduled=true

%below_4 (a: (s32[], f32[8])) -> pred[] {{
  %a = (s32[], f32[8]{{0:T(8)}}) parameter(0)
  %n = s32[]{{:T(128)}} get-tuple-element(%a), index=0
  %four = s32[]{{:T(128)}} constant(4)
  ROOT %lt = pred[]{{:T(512)}} compare(%n, %four), direction=LT
}}

%inner (b: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %b = (s32[], f32[8]{{0:T(8)}}) parameter(0)
  %m = s32[]{{:T(128)}} get-tuple-element(%b), index=0
  %y = f32[8]{{0:T(8)}} get-tuple-element(%b), index=1
  %one = s32[]{{:T(128)}} constant(1)
  %next = s32[]{{:T(128)}} add(%m, %one)
  %work = f32[8]{{0:T(8)}} add(%y, %y), {COST}
  ROOT %out = (s32[], f32[8]{{0:T(8)}}) tuple(%next, %work)
}}

%below_10 (c: (f32[8], s32[])) -> pred[] {{
  %c = (f32[8]{{0:T(8)}}, s32[]) parameter(0)
  %k = s32[]{{:T(128)}} get-tuple-element(%c), index=1
  %ten = s32[]{{:T(128)}} constant(10)
  ROOT %gt = pred[]{{:T(512)}} compare(%k, %ten), direction=LT
}}

%outer (d: (f32[8], s32[])) -> (f32[8], s32[]) {{
  %d = (f32[8]{{0:T(8)}}, /*index=1*/s32[]) parameter(0)
  %z = f32[8]{{0:T(8)}} get-tuple-element(%d), index=0
  %i = s32[]{{:T(128)}} get-tuple-element(%d), index=1
  %zero = s32[]{{:T(128)}} constant(0)
  %copied = s32[]{{:T(128)}} copy(%zero)
  %both = (s32[], f32[8]{{0:T(8)}}) tuple(%copied, /*index=1*/%z)
  %in = (s32[], f32[8]{{0:T(8)}}) while(%both), condition=%below_4, body=%inner
  %w = f32[8]{{0:T(8)}} get-tuple-element(%in), index=1
  %1 = s32[]{{:T(128)}} constant(1)
  %j = s32[]{{:T(128)}} add(%i, %1)
  ROOT %r = (f32[8]{{0:T(8)}}, s32[]) tuple(%w, %j)
}}

ENTRY %main (x: f32[8], s: s32[]) -> f32[8] {{
  %x = f32[8]{{0:T(8)}} parameter(0)
  %s = s32[] parameter(1)
  %two = s32[]{{:T(128)}} constant(2)
  %t = (f32[8]{{0:T(8)}}, s32[]) tuple(%x, %two)
  %w.1 = (f32[8]{{0:T(8)}}, s32[]) while(%t), condition=%below_10, body=%outer
  ROOT %copy.1 = f32[8]{{0:T(8)}} copy(%w.1), {COST}
}}
"""


def cycles(text):
    return sum(operation.cycles for operation in hlo.operations(text))


def test_a_body_counts_as_often_as_it_runs():
    assert hlo.loops_of(TEXT) == [4, 8]
    assert cycles(TEXT) == 7 * 4 * 8 + 7


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("tuple(%x, %two)", "tuple(%x, %s)"),
        ("%ten = s32[]{:T(128)} constant(10)", "%ten = s32[] copy(%k)"),
        ("%1 = s32[]{:T(128)} constant(1)", "%1 = s32[] constant(2)"),
        ("add(%i, %1)", "multiply(%i, %1)"),
        ("compare(%k, %ten), direction=LT", "compare(%k, %ten), direction=NE"),
    ],
)
def test_what_does_not_count_by_one_between_constants_is_unknown(line, instead):
    assert line in TEXT
    unknown = TEXT.replace(line, instead)
    assert hlo.loops_of(unknown) == [4, None]
    assert cycles(unknown) == 7 * 4 + 7

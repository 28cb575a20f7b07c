"""Collectives are counted as often as they run: by hand on a small text."""

import pytest

from specialize_jax.training import hlo

TEXT = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_condition (p: (u32[], f32[4])) -> pred[] {
  %limit = u32[]{:T(128)} constant(3)
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

%inner_body (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %start = (bf16[2,8]{1,0}, bf16[2,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=1
  %done = bf16[2,8]{1,0} collective-permute-done(%start)
}

%first_step (x: bf16[1,4]) -> bf16[16,4] {
  %a.1 = bf16[16,4]{1,0} all-gather(%x), channel_id=7, dimensions={0}
}

%next_step (x: bf16[1,4]) -> bf16[16,4] {
  %a.2 = bf16[16,4]{1,0:S(1)} all-gather(%x), channel_id=7, dimensions={0}
}

%stepping (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %more = bf16[16,4]{1,0} fusion(%x), kind=kCustom, calls=%next_step
}

%condition (p: (s32[], f32[4])) -> pred[] {
  %limit.1 = s32[] constant(24)
  ROOT %less.1 = pred[] compare(%counter, %limit.1), direction=LT
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %gathered = bf16[16,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%x), channel_id=2, dimensions={0}
  %loop = (u32[], f32[4]) while(%t), condition=%inner_condition, body=%inner_body
  %begun = bf16[16,4]{1,0} fusion(%x), kind=kCustom, calls=%first_step
  %steps = (u32[], f32[4]) while(%t), condition=%inner_condition, body=%stepping
}

%all-reduce-scatter.3 (p: f32[8,4]) -> f32[2,4] {
  %whole = f32[8,4]{1,0} all-reduce(%p), channel_id=3, to_apply=%add
  ROOT %part = f32[2,4]{1,0} dynamic-slice(%whole, %i, %zero)
}

%first (p: f32[4]) -> f32[4] {
  ROOT %sent = f32[4]{0} all-to-all(%p), channel_id=6
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %layers = (s32[], f32[4]) while(%t), condition=%condition, body=%body
  %fused = f32[2,4]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.3
  %pair = (f32[8,4]{1,0}, f32[3]{0}) all-reduce(%a, %b), channel_id=4, to_apply=%add
  %chosen = f32[4]{0} conditional(%p, %a, %a), branch_computations={%first, %first}
  %started = (f32[4]{0}, f32[16]{0}) all-gather-start(%a), channel_id=5, dimensions={0}
}
"""


def test_loops_count_by_their_trips_and_nested_ones_by_the_product():
    found = hlo.collectives(TEXT)
    assert found["collective-permute"] == (72, 72 * 32)
    # Channel 2 and, in steps, channel 7 once a layer; channel 5 once.
    assert found["all-gather"] == (24 + 24 + 1, 24 * 128 + 24 * 128 + 64)
    assert found["reduce-scatter"] == (1, 128)
    assert found["all-reduce"] == (1, 128 + 12)
    assert found["all-to-all"] == (2, 32)


@pytest.mark.parametrize(
    "text, message",
    [
        ("HloModule x\n", "without an ENTRY"),
        (TEXT.replace("constant(24)", "parameter(1)"), "one limit .* condition"),
        (TEXT.replace("direction=LT", "direction=GT"), "a comparison LT"),
    ],
)
def test_what_cannot_be_counted_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        hlo.collectives(text)

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
  %limit = u32[]{:T(128)} constant(6)
  %counter = u32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

%inner_body (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %two = u32[] constant(2)
  %before = u32[]{:T(128)} get-tuple-element(%p), index=0
  %raised = u32[] add(%before, %two), metadata={op_name="x"}
  %start = (bf16[2,8]{1,0}, bf16[2,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=1
  %done = bf16[2,8]{1,0} collective-permute-done(%start)
  ROOT %carried = (u32[], f32[4]) tuple(%raised, %y)
}

%first_step (x: bf16[1,4]) -> bf16[16,4] {
  %a.1 = bf16[16,4]{1,0} all-gather(%x), channel_id=7, dimensions={0}
}

%async_collective_fusion.7 (x: bf16[1,4]) -> bf16[16,4] {
  %a.2 = bf16[16,4]{1,0:S(1)} all-gather(%x), channel_id=7, dimensions={0}
}

%last_step (x: bf16[1,4]) -> bf16[16,4] {
  %a.3 = bf16[16,4]{1,0} all-gather(%x), channel_id=7, dimensions={0}
}

%stepping (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %one = u32[] constant(1)
  %before.1 = u32[] get-tuple-element(%p), index=0
  %raised.1 = u32[] add(%one, %before.1)
  %raised.2 = u32[] add(%raised.1, %one)
  %more = bf16[16,4]{1,0} fusion(%x), kind=kOutput, calls=%async_collective_fusion.7
  ROOT %carried.1 = (u32[], f32[4]) tuple(%raised.2, %y)
}

%condition (p: (f32[4], /*index=1*/s32[])) -> pred[] {
  %limit.1 = s32[] constant(24)
  %counter.1 = s32[] get-tuple-element(%p), index=1
  ROOT %less.1 = pred[] compare(%counter.1, %limit.1), direction=LT
}

%body (p: (f32[4], /*index=1*/s32[])) -> (f32[4], s32[]) {
  %one.1 = s32[] constant(1)
  %before.2 = s32[] get-tuple-element(%p), index=1
  %raised.3 = s32[] add(%before.2, %one.1)
  %copied = s32[]{:T(128)} copy(%raised.3)
  %gathered = bf16[16,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%x), channel_id=2, dimensions={0}
  %loop = (u32[], f32[4]) while(%t), condition=%inner_condition, body=%inner_body
  %async-collective-start.7 = bf16[16,4]{1,0} fusion(%x), kind=kCustom, calls=%first_step
  %steps = (u32[], f32[4]) while(%t), condition=%inner_condition, body=%stepping
  %async-collective-done.7 = bf16[16,4]{1,0} fusion(%x), kind=kCustom, calls=%last_step
  ROOT %carried.2 = (f32[4], /*index=1*/s32[]) tuple(%y, /*index=1*/%copied)
}

%decoding (p: (s32[], pred[])) -> pred[] {
  %limit.2 = s32[] constant(256)
  %counter.2 = s32[] get-tuple-element(%p), index=0
  %room = pred[] compare(%counter.2, %limit.2), direction=LT
  %ended = pred[] all-reduce(%e), channel_id=8, to_apply=%add
  %open = pred[] not(%ended)
  ROOT %both = pred[] and(%room, %open)
}

%token (p: (s32[], pred[])) -> (s32[], pred[]) {
  %one.2 = s32[] constant(1)
  %before.3 = s32[] get-tuple-element(%p), index=0
  %raised.4 = s32[] add(%before.3, %one.2)
  %out = bf16[64]{0} all-gather(%x), channel_id=9, dimensions={0}
  ROOT %carried.3 = (s32[], pred[]) tuple(%raised.4, %e)
}

%all-reduce-scatter.3 (p: f32[8,4]) -> f32[2,4] {
  %whole = f32[8,4]{1,0} all-reduce(%p), channel_id=3, to_apply=%add
  ROOT %part = f32[2,4]{1,0} dynamic-slice(%whole, %i, %zero)
}

%first (p: f32[4]) -> f32[4] {
  ROOT %sent = f32[4]{0} all-to-all(%p), channel_id=6
}

%all-reduce-scatter.4 (p: f32[8,4]) -> f32[2,4] {
  %whole.1 = f32[8,4]{1,0} all-reduce(%p), channel_id=3, to_apply=%add
  ROOT %part.1 = f32[2,4]{1,0} dynamic-slice(%whole.1, %i, %zero)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %layers = (s32[], f32[4]) while(%t), condition=%condition, body=%body
  %fused = f32[2,4]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.3
  %unrolled = f32[2,4]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.4
  %pair = (f32[8,4]{1,0}, f32[3]{0}) all-reduce(%a, %b), channel_id=4, to_apply=%add
  %chosen = f32[4]{0} conditional(%p, %a, %a), branch_computations={%first, %first}
  %received = (f32[8,4]{1,0}, u32[], token[]) recv(%t), channel_id=10, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %started = (f32[4]{0}, f32[16]{0}) all-gather-start(%a), channel_id=5, dimensions={0}
}
"""


# What decodes: a loop that ends when all rows have.
DECODING = TEXT.replace(
    "  %started",
    "  %answers = (s32[], pred[]) while(%t), condition=%decoding, body=%token\n  %started",
)


def test_loops_count_by_their_trips_and_nested_ones_by_the_product():
    found = hlo.collectives(TEXT)
    # To 6 by twos: 3 times in each of 24 layers.
    assert found["collective-permute"] == (72, 72 * 32)
    # Channel 2 and, in steps, channel 7 once a layer; channel 5 once.
    assert found["all-gather"] == (24 + 24 + 1, 24 * 128 + 24 * 128 + 64)
    # An unrolled loop repeats a collective, its channel as well.
    assert found["reduce-scatter"] == (2, 2 * 128)
    assert found["all-reduce"] == (1, 128 + 12)
    assert found["all-to-all"] == (2, 32)
    assert found["between-slices"] == (1, 128)


@pytest.mark.parametrize("runs, times", [(None, 256), (0, 0), (7, 7)])
def test_a_loop_that_may_end_early_runs_to_its_limit_or_as_told(runs, times):
    found, without = hlo.collectives(DECODING, open_ended=runs), hlo.collectives(TEXT)
    assert found["all-gather"].times - without["all-gather"].times == times
    assert found["all-gather"].bytes - without["all-gather"].bytes == times * 128
    # The condition is asked once more than the body runs.
    assert found["all-reduce"].times - without["all-reduce"].times == times + 1
    # The layers' loop has an end of its own.
    assert found["collective-permute"] == without["collective-permute"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("HloModule x\n", "without an ENTRY"),
        (TEXT.replace("constant(24)", "parameter(p)"), "one limit.* of condition condition"),
        (TEXT.replace("direction=LT", "direction=GT"), "a comparison LT"),
        (TEXT.replace("add(%before.2, %one.1)", "add(%before.2, %other)"), "a constant step"),
        (TEXT.replace("add(%before.2, %one.1)", "multiply(%before.2, %one.1)"), "a constant step"),
        (
            TEXT.replace("%one.1 = s32[] constant(1)", "%one.1 = s32[] constant(0)"),
            "a constant step",
        ),
        # The counter takes the place of another entry.
        (
            TEXT.replace(
                "%before.2 = s32[] get-tuple-element(%p), index=1",
                "%before.2 = s32[] get-tuple-element(%p), index=11",
            ),
            "a constant step",
        ),
    ],
)
def test_what_cannot_be_counted_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        hlo.collectives(text)

import jax
import jax.numpy as jnp
import pytest

from gxdistill.plan import counting


def _traffic(fun, *shapes, unknown=1.0):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return counting.traffic(jax.jit(fun).lower(*arguments).compile().as_text(), unknown)


def test_a_fused_program_reads_its_arguments_and_writes_its_result_once():
    traffic = _traffic(lambda a, b: jnp.tanh(a * b) + 1, (1000,), (1000,))
    assert traffic == counting.Traffic(3 * 4000, 0)


def test_a_loop_moves_its_body_as_often_as_it_runs():
    def looped(a, b):
        return jax.lax.scan(lambda x, _: (jnp.dot(x, b), None), a, None, length=7)[0]

    inside = 3 * 4 * 64**2
    # XLA may copy what is carried, once a turn.
    assert 7 * inside <= _traffic(looped, (64, 64), (64, 64)).moved <= 13 * inside


def test_a_slice_moves_its_own_size_not_its_sources():
    def looped(rows):
        def body(total, i):
            return total + jnp.sin(jax.lax.dynamic_index_in_dim(rows, i, keepdims=False)), None

        return jax.lax.scan(body, jnp.zeros(100), jnp.arange(50))[0]

    assert _traffic(looped, (50, 100)).moved < 50 * 10 * 4 * 100  # not 50 times all the rows


_FETCHED = """
HloModule m

%copied (q: f32[6,32]) -> f32[6,32] {
  %q = f32[6,32]{1,0} parameter(0)
  ROOT %copy = f32[6,32]{1,0:T(8,128)} copy(%q)
}

%fused (r: f32[6,8,4], i: s32[]) -> f32[1,8,4] {
  %r = f32[6,8,4]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[6,32]{1,0} bitcast(%r)
  %l = f32[6,32]{1,0:T(8,128)} fusion(%b), output_to_operand_aliasing={{}: (0, {})}, calls=%copied
  %d = f32[1,32]{1,0} dynamic-slice(%l, %i, %i), dynamic_slice_sizes={1,32}
  ROOT %s = f32[1,8,4]{2,1,0} bitcast(%d)
}

ENTRY %main (a: f32[6,8,4], i: s32[]) -> f32[1,8,4] {
  %a = f32[6,8,4]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %c = (f32[6,8,4]{2,1,0:S(1)}, f32[6,8,4]{2,1,0}, u32[]{:S(2)}) copy-start(%a)
  %e = f32[6,8,4]{2,1,0:S(1)} copy-done(%c)
  %p = f32[1,8,4]{2,1,0:S(1)} slice(%a), slice={[0:1], [0:8], [0:4]}
  %g = ((f32[6,8,4]{2,1,0}), f32[2,8,4]{2,1,0:S(1)}, s32[]{:S(2)}) slice-start(%a)
  ROOT %f = f32[1,8,4]{2,1,0} fusion(%a, %i), kind=kLoop, calls=%fused
}
"""


def test_what_is_fetched_is_read_once():
    # All rows into fast memory; one and two of them; and one row, which a fusion writes back.
    assert counting.traffic(_FETCHED).moved == pytest.approx(4 * 32 * (6 + 1 + 2 + 2), abs=16)


def test_what_is_sent_is_what_is_added_up():
    text = """
HloModule m

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %a = f32[8,4]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %r = f32[8,4]{1,0:T(8,128)} all-reduce(%a), replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %r)
}

ENTRY %main (a: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %a = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %w = (s32[], f32[8,4]{1,0}) while(%a), body=%body, backend_config={TURNS}
}
""".replace("TURNS", '"known_trip_count":{"n":"3"}')
    assert counting.traffic(text) == counting.Traffic(moved=3 * 256, sent=3 * 128)
    in_fast_memory = text.replace("T(8,128)", "T(8,128)S(1)")
    assert counting.traffic(in_fast_memory) == counting.Traffic(moved=0, sent=3 * 128)
    condition = """
%cond (q: (s32[], f32[8,4])) -> pred[] {
  %q = (s32[], f32[8,4]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %end = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%j, %end), direction=LT
}

ENTRY"""
    told = text.replace("backend_config", "condition=%cond, metadata").replace("\nENTRY", condition)
    told = told.replace("known_trip_count", "nothing")
    assert counting.traffic(told).sent == 5 * 128

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compiled
from gxdistill.errors import UserError

# As a GPU's compiler prints programs.
_TEXT = """HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {1}: \
(1, {}, must-alias) }, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%body.1 (p.1: (s32[], bf16[8,8])) -> (s32[], bf16[8,8]) {
  %p.1 = (s32[], bf16[8,8]{1,0}) parameter(0)
  %a.1 = bf16[8,8]{1,0} get-tuple-element(%p.1), index=1
  %dot.1 = f32[8,8]{1,0} dot(%a.1, %a.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main.1 (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %w = f32[3,3,4,4]{3,2,1,0} constant({...})
  %c.1 = (f32[1,4]{1,0}, u8[0]{0}) custom-call(%w, %x), window={size=3x3}, \
feature_group_count=2, custom_call_target="__cudnn$convForward"
  %g.1 = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%x, %w), custom_call_target="__cublas$gemm"
  %l.1 = (s32[], bf16[8,8]{1,0}) while(%x), condition=%cond.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"30"}}
  %l.2 = (s32[], bf16[8,8]{1,0}) while(%x), condition=%cond.1, body=%body.1
  %h.1 = f32[4]{0:S(5)} copy(%x)
  %s.1 = (f32[4]{0}, u32[], token[]) send(%x, %l.1), channel_id=1
  %k.1 = f32[4]{0} custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"
  ROOT %r.1 = f32[4]{0} add(%x, %x), metadata={op_name="a_callback"}
}
"""


def test_what_a_gpus_program_does_is_counted():
    assert compiled.read(_TEXT) == {
        "host_transfers": 3,
        "loops": 2,
        "loops_led_by_host": 1,
        "donated": 2,
        "products_bf16": 1,
        "products_f32": 2,
        "grouped": 1,
    }


def test_a_call_to_the_host_is_seen_in_a_program_that_makes_one():
    def ask(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def text(function):
        return jax.jit(function, donate_argnums=0).lower(jnp.ones(4)).compile().as_text()

    asking, alone = compiled.read(text(ask)), compiled.read(text(lambda x: x + 1))
    assert asking["host_transfers"] >= 1
    assert alone["host_transfers"] == 0
    assert alone["donated"] == 1


def test_settings_follow_a_configs_name():
    config = compiled.configure("gastric/memory=store/networks_at_once=0")
    assert config.distill.memory == "store"
    assert config.distill.networks_at_once == 0
    with pytest.raises(UserError, match="no setting momory"):
        compiled.configure("gastric/momory=store")


@pytest.mark.slow
def test_the_outer_steps_of_a_small_job_are_one_program_without_the_host():
    figures = compiled.compile_for(compiled.configure("demo:smoke"), compiled.targets.load("cpu"))
    assert figures["host_transfers"] == 0
    assert figures["steps_per_call"] == 2
    assert figures["donated"] >= 1
    assert figures["tflop"] > 0

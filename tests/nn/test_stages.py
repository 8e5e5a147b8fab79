import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.nn.stages import when


def _counted(step, value):
    """Adds 10 at the steps from 2 on."""
    return when(step >= 2, lambda: value + 10.0, value)


def test_a_stage_runs_at_its_steps_only():
    steps = jnp.arange(4)
    got = [float(jax.jit(_counted)(step, 1.0)) for step in steps]
    assert got == [1.0, 1.0, 11.0, 11.0]


def test_seeds_at_different_steps_keep_what_is_their_own():
    got = jax.jit(jax.vmap(_counted))(jnp.array([1, 2, 3, 0]), jnp.arange(4.0))
    np.testing.assert_array_equal(got, [0.0, 11.0, 12.0, 3.0])
    nested = jax.vmap(jax.vmap(_counted))(jnp.array([[0, 2], [3, 1]]), jnp.zeros((2, 2)))
    np.testing.assert_array_equal(nested, [[0.0, 10.0], [10.0, 0.0]])


def test_mapped_seeds_do_not_run_a_stage_that_none_is_in():
    ran = []

    def noted(step):
        def stage():
            jax.debug.callback(lambda: ran.append(1))
            return step

        return when(step >= 2, stage, step)

    mapped = jax.jit(jax.vmap(noted))
    jax.block_until_ready(mapped(jnp.array([0, 1])))
    jax.effects_barrier()
    assert not ran
    jax.block_until_ready(mapped(jnp.array([1, 2])))
    jax.effects_barrier()
    assert ran

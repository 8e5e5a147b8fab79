import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from robo_rl.nn import distributions


def _tanh_density(action, mean, log_std):
    """Change of variables in float64, written out."""
    slope = 1.0 - action**2
    return scipy.stats.norm.pdf(np.arctanh(action), mean, np.exp(log_std)) / slope


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.2, 0.3)])
def test_tanh_log_prob_equals_the_change_of_variables_and_integrates_right(mean, log_std):
    u = jnp.linspace(-3.0, 3.0, 31)[:, None]
    got = distributions.tanh_normal_log_prob(u, jnp.full_like(u, mean), jnp.full_like(u, log_std))
    expected = np.log(_tanh_density(np.tanh(np.asarray(u[:, 0], np.float64)), mean, log_std))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)

    def density(a):
        u = jnp.array([np.arctanh(a)])
        m, s = jnp.array([mean]), jnp.array([log_std])
        return float(jnp.exp(distributions.tanh_normal_log_prob(u, m, s)))

    total, _ = scipy.integrate.quad(density, -0.9999, 0.9999, limit=60, epsabs=1e-4)
    within = np.diff(scipy.stats.norm.cdf(np.arctanh([-0.9999, 0.9999]), mean, np.exp(log_std)))
    assert total == pytest.approx(within[0], abs=2e-4)


def test_log_prob_is_finite_where_tanh_is_one_in_float32():
    u = jnp.array([[30.0], [-30.0]])
    log_prob = distributions.tanh_normal_log_prob(u, u, jnp.zeros_like(u))
    # -log sqrt(2 pi) - 2 (log 2 - |u|)
    np.testing.assert_allclose(log_prob, -0.918939 - 2.0 * (np.log(2.0) - 30.0), rtol=1e-5)


def test_normal_log_prob_sums_over_the_action_axis():
    x, mean, log_std = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.0]), jnp.array([0.0, 0.7])
    expected = scipy.stats.norm.logpdf([1.0, -2.0], [0.5, 0.0], np.exp([0.0, 0.7])).sum()
    np.testing.assert_allclose(distributions.normal_log_prob(x, mean, log_std), expected, rtol=1e-5)


def test_samples_have_the_density_that_is_reported():
    """Mean of -log p over samples = entropy by numerical integration."""
    mean, log_std = jnp.full((200_000, 1), 0.4), jnp.full((200_000, 1), -0.5)
    actions, log_prob = distributions.tanh_normal_sample(jax.random.key(1), mean, log_std)

    def minus_p_log_p(a):
        p = _tanh_density(a, 0.4, -0.5)
        return -p * np.log(p) if p > 0.0 else 0.0

    entropy, _ = scipy.integrate.quad(minus_p_log_p, -1 + 1e-9, 1 - 1e-9)
    assert float(-log_prob.mean()) == pytest.approx(entropy, abs=0.01)
    assert float(jnp.abs(actions).max()) < 1.0


def test_clipped_noise_has_its_spread_and_never_leaves_its_bounds():
    """Spread 0.2 within +-0.5 is hardly cut; a spread of 5 is nearly always at a bound."""
    narrow = distributions.clipped_noise(jax.random.key(0), (20_000,), 0.2, 0.5)
    assert float(jnp.std(narrow)) == pytest.approx(0.2, abs=0.01)
    wide = distributions.clipped_noise(jax.random.key(0), (20_000,), 5.0, 0.5)
    assert float(jnp.abs(wide).max()) == 0.5
    assert float(jnp.mean(jnp.abs(wide) == 0.5)) == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.9, -1.0), (-0.3, -5.0)])
def test_a_cut_normal_has_its_tails_at_the_bounds(mean, log_std):
    x = np.array([[-1.0], [-0.5], [0.2], [0.99], [1.0]], np.float32)
    normal = scipy.stats.norm(mean, np.exp(log_std))
    expected = [normal.logcdf(-1.0), *normal.logpdf(x[1:4, 0].astype(float)), normal.logsf(1.0)]
    m, s = jnp.full((5, 1), mean), jnp.full((5, 1), log_std)
    got = distributions.clipped_normal_log_prob(jnp.asarray(x), m, s)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    slopes = jax.grad(lambda m: distributions.clipped_normal_log_prob(x, m, s).sum())(m)
    assert np.isfinite(slopes).all()


def test_the_score_of_a_cut_normal_has_a_mean_of_zero():
    """What makes its policy gradient unbiased; that of the density of cut samples is off."""
    log_std = jnp.zeros((200_000, 1))
    noise = jax.random.normal(jax.random.key(0), log_std.shape)
    x = jnp.clip(0.5 + noise, -1.0, 1.0)

    def mean_score(log_prob):
        return float(jax.grad(lambda m: log_prob(x, m * jnp.ones_like(x), log_std).mean())(0.5))

    assert mean_score(distributions.clipped_normal_log_prob) == pytest.approx(0.0, abs=0.01)
    assert abs(mean_score(distributions.normal_log_prob)) > 0.1


def test_entropy_and_divergence_of_normals():
    """KL(N(0, 1), N(1, 4)) = log 2 + (1 + 1) / 8 - 1 / 2; of a normal from itself, 0."""
    one, zero = jnp.ones(1), jnp.zeros(1)
    got = distributions.normal_kl(zero, zero, one, jnp.log(2.0 * one))
    assert float(got) == pytest.approx(np.log(2.0) - 0.25, rel=1e-5)
    assert float(distributions.normal_kl(one, one, one, one)) == 0.0
    entropy = distributions.normal_entropy(jnp.array([0.0, 0.7]))
    assert float(entropy) == pytest.approx(
        float(scipy.stats.norm.entropy(scale=np.exp([0.0, 0.7])).sum()), rel=1e-5
    )


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.5), (-1.0, 2.0)])
def test_the_divergence_of_normals_is_its_integral(mean, std):
    """Both directions between N(mean, std) and N(0.1, 0.7), on a fine grid; in two dimensions the
    sum of both."""
    x = np.linspace(-20.0, 20.0, 400_001)

    def log_density(mean, std):
        return -0.5 * ((x - mean) / std) ** 2 - np.log(std * np.sqrt(2.0 * np.pi))

    one, other = log_density(mean, std), log_density(0.1, 0.7)
    expected = [np.trapezoid(np.exp(p) * (p - q), x) for p, q in ((one, other), (other, one))]
    first = jnp.array([mean, 0.1]), jnp.log(jnp.array([std, 0.7]))
    second = jnp.array([0.1, mean]), jnp.log(jnp.array([0.7, std]))
    got = distributions.normal_kl(*first, *second)
    np.testing.assert_allclose(got, sum(expected), rtol=1e-5)
    alone = distributions.normal_kl(*(a[:1] for a in (*first, *second)))
    np.testing.assert_allclose(alone, expected[0], rtol=1e-5)

"""What Mamba's layer does along time: equal to loops, forward and backward, whatever the shape."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidhash_lab.models.selective_scan import (
    causal_convolution,
    exp,
    gated_scan,
    plain_convolution,
    plain_gated_scan,
    selective_scan,
    sigmoid,
    softplus,
)


def loop(u, pace, A, write, read, skip, gate):
    """The paper's recurrence, step by step, skip and gate, in the inputs' precision."""
    state, outputs = u.new_zeros(len(u), *A.shape), []
    step = torch.where(pace > 30, pace, torch.log1p(torch.exp(pace.clamp(max=30))))
    for t in range(u.shape[1]):
        kept = torch.exp(step[:, t, :, None] * A)
        written = step[:, t, :, None] * write[:, t, None] * u[:, t, :, None]
        state = kept * state + written
        y = (state * read[:, t, None]).sum(2) + skip * u[:, t]
        outputs.append(y * gate[:, t] * torch.sigmoid(gate[:, t]))
    return torch.stack(outputs, 1)


def convolution_loop(x, taps, bias):
    """A causal convolution, frame by frame, and SiLU, in the inputs' precision."""
    outputs = []
    for t in range(x.shape[1]):
        seen = [taps[-1 - ago] * x[:, t - ago] for ago in range(min(len(taps), t + 1))]
        mixed = bias + sum(seen)
        outputs.append(mixed * torch.sigmoid(mixed))
    return torch.stack(outputs, 1)


def inputs(videos, frames, inner, state=16, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=draw, dtype=dtype)

    widths = inner, inner, state, state, inner
    u, pace, write, read, gate = (normal(videos, frames, width) for width in widths)
    A, skip = -torch.exp(normal(inner, state)), normal(inner)
    return [x.requires_grad_() for x in (u, 2 * pace, A, write, read, skip, 3 * gate)]


def outcome(scan, given):
    """The output and the gradients of all inputs."""
    y = scan(*given)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), given)]


def assert_equal_in_float32(compiled, plain, exact, given, threads):
    """To 1e-5 of the largest value, on a number of threads; `exact` in double precision."""
    doubled = [x.detach().double().requires_grad_() for x in given]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = outcome(compiled, given)
    finally:
        torch.set_num_threads(before)
    for result in (found, outcome(plain, given)):
        for got, expected in zip(result, outcome(exact, doubled), strict=True):
            assert got.dtype == torch.float32
            near = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=near)


@settings(max_examples=25)
@given(
    videos=st.integers(1, 5),
    frames=st.integers(1, 40),
    inner=st.integers(1, 37),
    state=st.integers(1, 17),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_equals_a_loop_over_time_in_double_precision(videos, frames, inner, state, threads, seed):
    given = inputs(videos, frames, inner, state, seed)
    assert_equal_in_float32(gated_scan, plain_gated_scan, loop, given, threads)


@settings(max_examples=25)
@given(
    videos=st.integers(1, 5),
    frames=st.integers(1, 40),
    inner=st.integers(1, 37),
    taps=st.integers(1, 6),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_the_convolution_equals_a_loop_too(videos, frames, inner, taps, threads, seed):
    draw = torch.Generator().manual_seed(seed)
    shapes = (videos, frames, inner), (taps, inner), (inner,)
    given = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    assert_equal_in_float32(causal_convolution, plain_convolution, convolution_loop, given, threads)


def test_the_plain_scan_by_hand():
    """A = -log 2: a step of 1 halves the state, one of 0 leaves it and writes nothing."""
    u, step = torch.tensor([[8.0, 100, 0, 4]])[..., None], torch.tensor([[1.0, 0, 1, 1]])[..., None]
    one = torch.ones(1, 4, 1)
    y = selective_scan(u, step, -torch.tensor([[2.0]]).log(), one, one)
    torch.testing.assert_close(y.flatten(), torch.tensor([8.0, 8, 4, 6]))


def test_double_precision_stays_double():
    given = inputs(3, 4, 3, 2, dtype=torch.float64)
    for got, expected in zip(outcome(gated_scan, given), outcome(loop, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(gated_scan, given)


def test_shapes_are_known_where_nothing_is_computed():
    given = [x.detach().to("meta") for x in inputs(3, 4, 6)]
    assert gated_scan(*given).shape == (3, 4, 6)


def test_the_exponential_of_the_compiled_loop():
    x = np.linspace(-87, 0, 10_001, dtype=np.float32)
    found = np.array([exp(each) for each in x])
    assert np.abs(found / np.exp(x.astype(float)) - 1).max() < 1e-5
    assert exp(np.float32(0)) == 1 and 0 < exp(np.float32(-1e9)) < 1e-37
    assert np.isnan(exp(np.float32(np.nan)))


def test_sigmoid_and_softplus_of_the_compiled_loop():
    x = np.linspace(-80, 80, 10_001, dtype=np.float32)
    exact = x.astype(float)
    found = np.array([sigmoid(each) for each in x]), np.array([softplus(each) for each in x])
    assert np.abs(found[0] * (1 + np.exp(-exact)) - 1).max() < 1e-5
    assert np.abs(found[1] / np.logaddexp(0, exact) - 1).max() < 1e-5
    for far in (np.float32(-1e9), np.float32(1e9)):
        assert sigmoid(far) == pytest.approx(float(far > 0), abs=1e-30)
        assert softplus(far) == pytest.approx(max(far, 0), abs=1e-30)
    assert np.isnan(sigmoid(np.float32(np.nan))) and np.isnan(softplus(np.float32(np.nan)))


@pytest.mark.parametrize("which", range(7))
def test_what_is_not_a_number_is_never_lost(which):
    """A training stops at a loss that is not finite: here it must become one."""
    given = inputs(2, 5, 8)
    with torch.no_grad():
        given[which].view(-1)[-1] = torch.nan
    found, expected = outcome(gated_scan, given), outcome(loop, given)
    assert found[0].isnan().any() and torch.equal(found[0].isnan(), expected[0].isnan())
    assert all(got.isnan().any() for got, wanted in zip(found, expected) if wanted.isnan().any())


def test_long_steps_and_slow_decays_stay_finite():
    given = inputs(2, 30, 8)
    with torch.no_grad():
        given[1].mul_(1000)
    assert all(x.isfinite().all() for x in outcome(gated_scan, given))


def test_no_videos():
    found = outcome(gated_scan, inputs(0, 5, 8))
    assert found[0].shape == (0, 5, 8) and not found[3].any()


def test_computes_in_float32_under_autocast():
    given = inputs(2, 6, 8)
    expected = gated_scan(*given)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gated_scan(*given), expected, rtol=0, atol=0)
        low = gated_scan(*(x.bfloat16() for x in given))
    assert low.dtype == torch.float32


def test_later_frames_do_not_reach_earlier_outputs():
    u, *others = (x.detach() for x in inputs(2, 9, 8))
    changed = u.clone()
    changed[:, 5:] += 1
    one, other = gated_scan(u, *others), gated_scan(changed, *others)
    assert torch.equal(one[:, :5], other[:, :5])
    assert not torch.isclose(one[:, 5:], other[:, 5:]).all()

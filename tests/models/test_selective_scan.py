"""The selective scan: equal to a loop over time, forward and backward, whatever the shape."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidhash_lab.models.selective_scan import exp, plain_scan, selective_scan


def loop(u, step, A, write, read):
    """The paper's recurrence, step by step, in the inputs' precision."""
    state, outputs = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        kept = torch.exp(step[:, t, :, None] * A)
        written = step[:, t, :, None] * write[:, t, None] * u[:, t, :, None]
        state = kept * state + written
        outputs.append((state * read[:, t, None]).sum(2))
    return torch.stack(outputs, 1)


def inputs(videos, frames, inner, state=16, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=draw, dtype=dtype)

    step = torch.nn.functional.softplus(2 * normal(videos, frames, inner))
    A = -torch.exp(normal(inner, state))
    u, write, read = (normal(videos, frames, width) for width in (inner, state, state))
    return [x.requires_grad_() for x in (u, step, A, write, read)]


def outcome(scan, given):
    """The output and the gradients of all inputs."""
    y = scan(*given)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), given)]


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
    """In float32 to 1e-5 of the largest value, compiled and plain, on any number of threads."""
    given = inputs(videos, frames, inner, state, seed)
    exact = [x.detach().double().requires_grad_() for x in given]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compiled = outcome(selective_scan, given)
    finally:
        torch.set_num_threads(before)
    for found in (compiled, outcome(plain_scan, given)):
        for got, expected in zip(found, outcome(loop, exact), strict=True):
            assert got.dtype == torch.float32
            near = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=near)


def test_double_precision_stays_double():
    given = inputs(3, 4, 3, 2, dtype=torch.float64)
    for got, expected in zip(outcome(selective_scan, given), outcome(loop, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(selective_scan, given)


def test_shapes_are_known_where_nothing_is_computed():
    given = [x.detach().to("meta") for x in inputs(3, 4, 6)]
    assert selective_scan(*given).shape == (3, 4, 6)


def test_the_exponential_of_the_compiled_loop():
    x = np.linspace(-87, 0, 10_001, dtype=np.float32)
    found = np.array([exp(each) for each in x])
    assert np.abs(found / np.exp(x.astype(float)) - 1).max() < 1e-5
    assert exp(np.float32(0)) == 1 and 0 < exp(np.float32(-1e9)) < 1e-37
    assert np.isnan(exp(np.float32(np.nan)))


@pytest.mark.parametrize("which", range(5))
def test_what_is_not_a_number_is_never_lost(which):
    """A training stops at a loss that is not finite: here it must become one."""
    given = inputs(2, 5, 8)
    with torch.no_grad():
        given[which].view(-1)[-1] = torch.nan
    found, expected = outcome(selective_scan, given), outcome(loop, given)
    assert found[0].isnan().any() and torch.equal(found[0].isnan(), expected[0].isnan())
    assert all(got.isnan().any() for got, wanted in zip(found, expected) if wanted.isnan().any())


def test_long_steps_and_slow_decays_stay_finite():
    given = inputs(2, 30, 8)
    with torch.no_grad():
        given[1].mul_(1000)
    assert all(x.isfinite().all() for x in outcome(selective_scan, given))


def test_no_videos():
    found = outcome(selective_scan, inputs(0, 5, 8))
    assert found[0].shape == (0, 5, 8) and not found[3].any()


def test_computes_in_float32_under_autocast():
    given = inputs(2, 6, 8)
    expected = selective_scan(*given)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(selective_scan(*given), expected, rtol=0, atol=0)
        low = selective_scan(*(x.bfloat16() for x in given))
    assert low.dtype == torch.float32


def test_later_frames_do_not_reach_earlier_outputs():
    u, *others = (x.detach() for x in inputs(2, 9, 8))
    changed = u.clone()
    changed[:, 5:] += 1
    one, other = selective_scan(u, *others), selective_scan(changed, *others)
    assert torch.equal(one[:, :5], other[:, :5])
    assert not torch.isclose(one[:, 5:], other[:, 5:]).all()

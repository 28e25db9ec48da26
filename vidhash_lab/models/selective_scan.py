"""The selective scan of Mamba, forward and backward, for some tens of frames.

A state forgets and is written to at every step, by as much as the step's own input says:

    h_t = exp(step_t A) h_(t-1) + step_t u_t write_t        y_t = sum over S of read_t h_t

`write` and `read` are the paper's B and C. Gu and Dao, Mamba: Linear-Time Sequence Modeling with
Selective State Spaces, 2023, algorithm 2.

`plain_scan` is that formula in torch, for any device and type. In torch every product passes
through memory: (B, T, E, S) numbers, 16 times as many as a layer holds. So in float32 on a CPU the
same loop is compiled, the states stay in the processor's cache, and the backward pass computes them
anew. `benchmarks/s5vh.py` times one beside the other.

B videos in a batch, T frames per video, E inner width, S size of the state of each channel.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch.autograd.function import once_differentiable

# Sums may run in vector registers; NaN remains NaN.
FAST = {"contract", "nsz", "reassoc"}
# Of x in 2 to the x, x from 0 to 1, the highest power first: to 2e-7, and exact for 0.
POWERS = 0.00186713, 0.00901703, 0.05579991, 0.24016445, 0.69315131, 1.0


def selective_scan(u, step, A, write, read):
    """Scan u (B, T, E) with steps (B, T, E), A (E, S), write and read (B, T, S) -> y (B, T, E).

    No step A is positive. Computes in float32, also under autocast, or in float64 where all inputs
    are.
    """
    inputs = [x.float() if x.dtype.itemsize < 4 else x for x in (u, step, A, write, read)]
    compiled = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in inputs)
    return _Scan.apply(*inputs) if compiled else plain_scan(*inputs)


def plain_scan(u, step, A, write, read):
    """Scan as `selective_scan` does, by a loop over time in torch."""
    state, y = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        written = (step[:, t] * u[:, t])[:, :, None] * write[:, t, None]
        state = torch.exp(step[:, t, :, None] * A) * state + written
        y.append((state * read[:, t, None]).sum(2))  # no product of matrices: autocast lowers those
    return torch.stack(y, 1)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, step, A, write, read):
        rate = A.T.contiguous()  # (S, E): the loops over E run along contiguous memory
        given = [x.contiguous() for x in (step * u, step, write, read)]
        y = torch.empty_like(given[0])
        _in_threads(scan_forward, rate, *given, y)
        ctx.save_for_backward(u, rate, *given)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        u, rate, *given = ctx.saved_tensors
        d_written, d_step, *others = (torch.empty_like(x) for x in given)
        d_rate = torch.zeros(torch.get_num_threads(), *rate.shape)  # each thread's
        found = d_rate, d_written, d_step, *others
        _in_threads(scan_backward, rate, *given, d_y.contiguous(), *found)
        return d_written * given[1], d_step + d_written * u, d_rate.sum(0).T, *others


def _in_threads(function, rate, *rows):
    """Call a compiled function in torch's number of threads, each with its share of the videos."""
    count = torch.get_num_threads()
    shares = zip(*(each.detach().tensor_split(count) for each in rows))
    calls = [[x.numpy() for x in (rate, *share)] for share in shares]
    if count == 1:
        function(*calls[0])
    else:
        with ThreadPoolExecutor(count) as executor:
            list(executor.map(lambda call: function(*call), calls))


@njit(fastmath=FAST, nogil=True, inline="always")
def exp(x):
    """Return e to the x, at most 88, to 1e-6 of itself: by a polynomial, which vectors can do."""
    x = x * np.float32(math.log2(math.e))
    x = np.float32(-126) if x < np.float32(-126) else x  # so that NaN stays NaN
    whole = np.floor(x)
    rest, power = x - whole, np.float32(0)
    for factor in POWERS:
        power = power * rest + np.float32(factor)
    exponent = np.int32(np.int32(whole) + 127) << np.int32(23)  # the bits of 2 to the whole
    return power * np.int32(exponent).view(np.float32)


@njit(fastmath=FAST, nogil=True, cache=True)
def scan_forward(rate, written, step, write, read, y):
    """Fill y (B, T, E) in; `written` (B, T, E) is step u, `rate` (S, E) is A."""
    B, T, E = written.shape
    state = np.empty(rate.shape, np.float32)
    for b in range(B):
        state[:] = 0
        for t in range(T):
            y[b, t] = 0
            for s in range(len(rate)):
                for e in range(E):
                    decay = exp(step[b, t, e] * rate[s, e])
                    state[s, e] = decay * state[s, e] + write[b, t, s] * written[b, t, e]
                    y[b, t, e] += read[b, t, s] * state[s, e]


@njit(fastmath=FAST, nogil=True, cache=True)
def scan_backward(
    rate, written, step, write, read, d_y, d_rate, d_written, d_step, d_write, d_read
):
    """Fill the gradients in, (B, ...) as what they are of; add to d_rate (1, S, E)."""
    B, T, E = written.shape
    decay, left = np.empty((2, T, *rate.shape), np.float32)  # left of the state before
    state = np.empty(rate.shape, np.float32)
    for b in range(B):
        state[:] = 0
        for t in range(T):
            for s in range(len(rate)):
                for e in range(E):
                    decay[t, s, e] = exp(step[b, t, e] * rate[s, e])
                    left[t, s, e] = decay[t, s, e] * state[s, e]
                    state[s, e] = left[t, s, e] + write[b, t, s] * written[b, t, e]
        later = state  # the gradient that comes from later states
        later[:] = 0
        for t in range(T - 1, -1, -1):
            d_written[b, t] = d_step[b, t] = 0
            for s in range(len(rate)):
                w, r, d_w, d_r = write[b, t, s], read[b, t, s], np.float32(0), np.float32(0)
                for e in range(E):
                    d_state = later[s, e] + r * d_y[b, t, e]
                    later[s, e] = decay[t, s, e] * d_state
                    d_r += (left[t, s, e] + w * written[b, t, e]) * d_y[b, t, e]
                    d_w += d_state * written[b, t, e]
                    d_written[b, t, e] += w * d_state
                    # The decay's exponent is step A: its gradient is d_state exp(step A) h_(t-1).
                    d_exponent = d_state * left[t, s, e]
                    d_rate[0, s, e] += d_exponent * step[b, t, e]
                    d_step[b, t, e] += d_exponent * rate[s, e]
                d_write[b, t, s], d_read[b, t, s] = d_w, d_r

"""The selective scan of Mamba, forward and backward, for some tens of frames.

A state forgets and is written to at every step, by as much as the step's own input says:

    h_t = exp(step_t A) h_(t-1) + step_t u_t write_t        y_t = sum over S of read_t h_t

`write` and `read` are the paper's B and C. Gu and Dao, Mamba: Linear-Time Sequence Modeling with
Selective State Spaces, 2023, algorithm 2.

`selective_scan` is that formula in torch, for any device and type. In torch every product passes
through memory: (B, T, E, S) numbers, 16 times as many as a layer holds. So in float32 on a CPU what
a layer does along time, `causal_convolution` and `gated_scan`, is compiled: states stay in the
processor's cache, and the backward pass computes them anew. `benchmarks/s5vh.py` times a layer's
parts beside the same in torch.

B videos in a batch, T frames per video, E inner width, S size of the state of each channel, K taps
of a convolution.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch.autograd.function import once_differentiable

# Sums may run in vector registers; NaN remains NaN.
FAST = {"contract", "nsz", "reassoc"}
# A division that may raise would keep its whole loop out of vector registers: twice the time.
COMPILED = {"fastmath": FAST, "nogil": True, "error_model": "numpy"}
# Of x in 2 to the x, x from 0 to 1, the highest power first: to 2e-7, and exact for 0.
POWERS = 0.00186713, 0.00901703, 0.05579991, 0.24016445, 0.69315131, 1.0
# Of z in log(1 + z) / z, z from 0 to 1, the highest power first: interpolated, to 3e-7.
LOGARITHM = -0.008371, 0.043494, -0.1068500, 0.1768748, -0.2447477, 0.3327193, -0.4999718, 1.0


def selective_scan(u, step, A, write, read):
    """Scan u (B, T, E) with steps (B, T, E), A (E, S), write and read (B, T, S) -> y (B, T, E)."""
    state, y = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        written = (step[:, t] * u[:, t])[:, :, None] * write[:, t, None]
        state = torch.exp(step[:, t, :, None] * A) * state + written
        y.append((state * read[:, t, None]).sum(2))  # no product of matrices: autocast lowers those
    return torch.stack(y, 1)


def gated_scan(u, pace, A, write, read, skip, gate):
    """Scan, add skip (E) times u, multiply by SiLU of the gate (B, T, E) -> (B, T, E).

    Steps are softplus of the pace (B, T, E), no A is positive, the rest as in `selective_scan`.
    Computes in float32, also under autocast, or in float64 where all inputs are.
    """
    inputs, compiled = _for_compiled(u, pace, A, write, read, skip, gate)
    return _GatedScan.apply(*inputs) if compiled else plain_gated_scan(*inputs)


def plain_gated_scan(u, pace, A, write, read, skip, gate):
    """Compute what `gated_scan` does, in torch."""
    return (selective_scan(u, F.softplus(pace), A, write, read) + skip * u) * F.silu(gate)


def causal_convolution(x, taps, bias):
    """Mix each channel of x (B, T, E) over a frame and the K - 1 before it, then SiLU -> (B, T, E).

    `taps` (K, E), the frame's own last, and `bias` (E); zeros where no frame is. Types as above.
    """
    inputs, compiled = _for_compiled(x, taps, bias)
    return _CausalConvolution.apply(*inputs) if compiled else plain_convolution(*inputs)


def plain_convolution(x, taps, bias):
    """Compute what `causal_convolution` does, in torch, as a sum of shifted products."""
    padded = F.pad(x, (0, 0, len(taps) - 1, 0))
    return F.silu(sum((padded[:, k : k + x.shape[1]] * tap for k, tap in enumerate(taps)), bias))


def _for_compiled(*inputs):
    """Widen low precisions -> the inputs, and whether compiled loops take them."""
    inputs = [x.float() if x.dtype.itemsize < 4 else x for x in inputs]
    return inputs, all(x.device.type == "cpu" and x.dtype == torch.float32 for x in inputs)


class _GatedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, pace, A, write, read, skip, gate):
        shared = A.T.contiguous(), skip.contiguous()  # (S, E): loops over E run along memory
        given = [x.contiguous() for x in (u, pace, write, read, gate)]
        scanned, y = torch.empty_like(given[0]), torch.empty_like(given[0])
        _in_threads(scan_forward, shared, *given, scanned, y)
        ctx.save_for_backward(*shared, *given, scanned)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        rate, skip, *given, gate, scanned = ctx.saved_tensors
        d_gate, d_scanned = torch.empty_like(gate), torch.empty_like(gate)
        _in_threads(gate_backward, (), gate, scanned, d_y.contiguous(), d_gate, d_scanned)
        found = [torch.empty_like(x) for x in given]
        d_rate, d_skip = _for_each_thread(rate), _for_each_thread(skip)
        _in_threads(scan_backward, (rate, skip), *given, d_scanned, *found, d_rate, d_skip)
        d_u, d_pace, d_write, d_read = found
        return d_u, d_pace, d_rate.sum(0).T, d_write, d_read, d_skip.sum(0), d_gate


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, taps, bias):
        x, taps, bias = x.contiguous(), taps.contiguous(), bias.contiguous()
        y = torch.empty_like(x)
        _in_threads(convolution_forward, (taps, bias), x, y)
        ctx.save_for_backward(x, taps, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, taps, bias = ctx.saved_tensors
        d_x, d_taps, d_bias = torch.empty_like(x), _for_each_thread(taps), _for_each_thread(bias)
        _in_threads(convolution_backward, (taps, bias), x, d_y.contiguous(), d_x, d_taps, d_bias)
        return d_x, d_taps.sum(0), d_bias.sum(0)


def _for_each_thread(shared):
    """Zeros to which each thread adds the gradient of what all share."""
    return shared.new_zeros(torch.get_num_threads(), *shared.shape)


def _in_threads(function, shared, *rows):
    """Call a compiled function in torch's number of threads, each with its share of the rows.

    Numbers below 1e-38 are zero there: a gradient that goes back through many decays becomes as
    small, and a processor takes a hundred cycles for each.
    """
    count = torch.get_num_threads()
    shares = zip(*(each.detach().tensor_split(count) for each in rows))
    calls = [[x.detach().numpy() for x in (*shared, *share)] for share in shares]
    with ThreadPoolExecutor(count, "scan", torch.set_flush_denormal, (True,)) as executor:
        list(executor.map(lambda call: function(*call), calls))


@njit(**COMPILED, inline="always")
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


@njit(**COMPILED, inline="always")
def sigmoid(x):
    """Return 1 / (1 + e to the -x), to 1e-6 of itself."""
    x = np.float32(-80) if x < np.float32(-80) else x  # so that NaN stays NaN
    return np.float32(1) / (np.float32(1) + exp(-x))


@njit(**COMPILED, inline="always")
def softplus(x):
    """Return log(1 + e to the x), to 1e-6 of itself."""
    small, power = exp(-abs(x)), np.float32(0)
    for factor in LOGARITHM:
        power = power * small + np.float32(factor)
    return power * small + (x if x > 0 else np.float32(0))


@njit(**COMPILED, inline="always")
def silu_slope(x, share):
    """Return the derivative of x times its sigmoid, which is `share`."""
    return share * (np.float32(1) + x * (np.float32(1) - share))


@njit(**COMPILED, cache=True)
def scan_forward(rate, skip, u, pace, write, read, gate, scanned, y):
    """Fill `scanned` (B, T, E), without the gate, and y in; `rate` (S, E) is A."""
    B, T, E = u.shape
    state, (step, written) = np.empty(rate.shape, np.float32), np.empty((2, E), np.float32)
    for b in range(B):
        state[:] = 0
        for t in range(T):
            for e in range(E):
                step[e] = softplus(pace[b, t, e])
                written[e] = step[e] * u[b, t, e]
                scanned[b, t, e] = skip[e] * u[b, t, e]
            for s in range(len(rate)):
                for e in range(E):
                    decay = exp(step[e] * rate[s, e])
                    state[s, e] = decay * state[s, e] + write[b, t, s] * written[e]
                    scanned[b, t, e] += read[b, t, s] * state[s, e]
            for e in range(E):
                y[b, t, e] = scanned[b, t, e] * gate[b, t, e] * sigmoid(gate[b, t, e])


@njit(**COMPILED, cache=True)
def gate_backward(gate, scanned, d_y, d_gate, d_scanned):
    """Fill d_gate and d_scanned (B, T, E) in."""
    B, T, E = gate.shape
    for b in range(B):
        for t in range(T):
            for e in range(E):
                share = sigmoid(gate[b, t, e])
                d_scanned[b, t, e] = d_y[b, t, e] * gate[b, t, e] * share
                d_gate[b, t, e] = d_y[b, t, e] * scanned[b, t, e] * silu_slope(gate[b, t, e], share)


@njit(**COMPILED, cache=True)
def scan_backward(
    rate, skip, u, pace, write, read, d_y, d_u, d_pace, d_write, d_read, d_rate, d_skip
):
    """Fill the gradients in, as what they are of; add to d_rate (1, S, E) and d_skip (1, E).

    A decay's exponent is step A: its gradient is d_state exp(step A) h_(t-1).
    """
    B, T, E = u.shape
    decay, left = np.empty((2, T, *rate.shape), np.float32)  # left of the state before
    step, written = np.empty((2, T, E), np.float32)
    # One array each: a loop that writes into two parts of one stays out of vector registers.
    d_step, d_written, state = np.empty(E, np.float32), np.empty(E, np.float32), np.empty_like(rate)
    for b in range(B):
        state[:] = 0
        for t in range(T):
            for e in range(E):
                step[t, e] = softplus(pace[b, t, e])
                written[t, e] = step[t, e] * u[b, t, e]
            for s in range(len(rate)):
                for e in range(E):
                    decay[t, s, e] = exp(step[t, e] * rate[s, e])
                    left[t, s, e] = decay[t, s, e] * state[s, e]
                    state[s, e] = left[t, s, e] + write[b, t, s] * written[t, e]
        later = state  # the gradient that comes from later states
        later[:] = 0
        for t in range(T - 1, -1, -1):
            d_step[:] = d_written[:] = 0
            for s in range(len(rate)):
                w, r, d_w, d_r = write[b, t, s], read[b, t, s], np.float32(0), np.float32(0)
                for e in range(E):
                    d_state = later[s, e] + r * d_y[b, t, e]
                    later[s, e] = decay[t, s, e] * d_state
                    d_r += (left[t, s, e] + w * written[t, e]) * d_y[b, t, e]
                    d_w += d_state * written[t, e]
                    d_written[e] += w * d_state
                    d_exponent = d_state * left[t, s, e]
                    d_rate[0, s, e] += d_exponent * step[t, e]
                    d_step[e] += d_exponent * rate[s, e]
                d_write[b, t, s], d_read[b, t, s] = d_w, d_r
            for e in range(E):
                d_skip[0, e] += u[b, t, e] * d_y[b, t, e]
                d_u[b, t, e] = d_written[e] * step[t, e] + skip[e] * d_y[b, t, e]
            for e in range(E):
                d_pace[b, t, e] = (d_step[e] + d_written[e] * u[b, t, e]) * sigmoid(pace[b, t, e])


@njit(**COMPILED, cache=True)
def convolution_forward(taps, bias, x, y):
    """Fill y (B, T, E) in, of x (B, T, E) and taps (K, E)."""
    B, T, E = x.shape
    K = len(taps)
    for b in range(B):
        for t in range(T):
            y[b, t] = bias
            for ago in range(min(K, t + 1)):
                for e in range(E):
                    y[b, t, e] += taps[K - 1 - ago, e] * x[b, t - ago, e]
            for e in range(E):
                y[b, t, e] *= sigmoid(y[b, t, e])


@njit(**COMPILED, cache=True)
def convolution_backward(taps, bias, x, d_y, d_x, d_taps, d_bias):
    """Fill d_x (B, T, E) in; add to d_taps (1, K, E) and d_bias (1, E)."""
    B, T, E = x.shape
    K, mixed = len(taps), np.empty(E, np.float32)
    for b in range(B):
        d_x[b] = 0
        for t in range(T):
            mixed[:] = bias
            for ago in range(min(K, t + 1)):
                for e in range(E):
                    mixed[e] += taps[K - 1 - ago, e] * x[b, t - ago, e]
            for e in range(E):
                mixed[e] = d_y[b, t, e] * silu_slope(mixed[e], sigmoid(mixed[e]))  # the gradient
                d_bias[0, e] += mixed[e]
            for ago in range(min(K, t + 1)):
                for e in range(E):
                    d_x[b, t - ago, e] += taps[K - 1 - ago, e] * mixed[e]
                    d_taps[0, K - 1 - ago, e] += x[b, t - ago, e] * mixed[e]

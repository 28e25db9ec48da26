"""The selective scan of Mamba in plain torch, forward and backward, for some tens of frames.

A state forgets and is written to at every step, by as much as the step's own input says:

    h_t = exp(step_t A) h_(t-1) + step_t u_t write_t        y_t = sum over S of read_t h_t

`write` and `read` are the paper's B and C. Gu and Dao, Mamba: Linear-Time Sequence Modeling with
Selective State Spaces, 2023, algorithm 2.

Only the recurrence itself is a loop over time. What is wide, (T, B, S, E), exists for a few videos
at once, in buffers that stay in the processor's cache, and is computed anew in the backward pass:
a model of six blocks would keep gigabytes of it. E is the last axis there, so that every operation
runs along contiguous memory. `benchmarks/s5vh.py` times it beside the plain loop.

B videos in a batch, T frames per video, E inner width, S size of the state of each channel.
"""

import math

import torch
from torch.autograd.function import once_differentiable

IN_CACHE = 2**19  # numbers in a buffer; of 2^17 to 2^21 the fastest for T 7 to 25 on two cores


def selective_scan(u, step, A, write, read):
    """Scan u (B, T, E) with steps (B, T, E), A (E, S), write and read (B, T, S) -> y (B, T, E).

    Computes in float32 also under autocast, or in float64 where the inputs are.
    """
    inputs = u, step, A, write, read
    with torch.autocast(u.device.type, enabled=False):
        return _Scan.apply(*(x.float() if x.dtype.itemsize < 4 else x for x in inputs))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, step, A, write, read):
        # Time first, so that one step of all videos is one piece of memory.
        u, step, write, read = (x.transpose(0, 1) for x in (u, step, write, read))
        rate = A.T.contiguous()  # (S, E)
        y = u.new_empty(u.shape)
        for part, (decay, states) in _buffers(u, rate, 2):
            _states(u[:, part], step[:, part], rate, write[:, part], decay, states)
            y[:, part] = (read[:, part, None] @ states).squeeze(2)
        ctx.save_for_backward(u, step, rate, write, read)
        return y.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        u, step, rate, write, read = ctx.saved_tensors
        gradient = gradient.transpose(0, 1)
        d_u, d_step, d_write, d_read = (x.new_zeros(x.shape) for x in (u, step, write, read))
        d_rate = torch.zeros_like(rate)
        for part, (decay, states, d_states, work) in _buffers(u, rate, 4):
            _states(u[:, part], step[:, part], rate, write[:, part], decay, states)
            d_y, written = gradient[:, part, None], (step[:, part] * u[:, part])[:, :, None]
            # A state reaches its own output and, through the decay, all later states.
            torch.mul(read[:, part, :, None], d_y, out=d_states)
            for t in range(len(u) - 1, 0, -1):
                d_states[t - 1].addcmul_(decay[t], d_states[t])
            d_read[:, part] = torch.mul(states, d_y, out=work).sum(3)
            d_write[:, part] = torch.mul(d_states, written, out=work).sum(3)
            d_u[:, part] = (write[:, part, None] @ d_states).squeeze(2)  # of step u, so far
            # The decay's exponent is step A: its gradient is d_states_t h_(t-1) decay_t.
            d_exponent = d_states[1:].mul_(decay[1:]).mul_(states[:-1])
            d_rate += torch.mul(d_exponent, step[1:, part, None], out=work[1:]).sum((0, 1))
            d_step[1:, part] = d_exponent.mul_(rate).sum(2)
        d_step += d_u * u
        d_u *= step
        return (
            *(x.transpose(0, 1) for x in (d_u, d_step)),
            d_rate.T,
            *(x.transpose(0, 1) for x in (d_write, d_read)),
        )


def _states(u, step, rate, write, decay, states):
    """Fill the buffers (T, B, S, E): how much of a state stays at each step, and the states."""
    # exp2 takes half as long as exp.
    torch.mul(step[:, :, None], rate * math.log2(math.e), out=decay).exp2_()
    torch.mul((step * u)[:, :, None], write[..., None], out=states)
    for t in range(1, len(u)):
        states[t].addcmul_(decay[t], states[t - 1])


def _buffers(u, rate, count):
    """Cut videos u (T, B, E) into parts -> pairs of a slice and `count` buffers (T, part, S, E)."""
    T, B, E = u.shape
    size = B if u.is_cuda else min(B, max(1, IN_CACHE // (T * rate.numel())))
    space = u.new_empty(count, T, size, len(rate), E)
    for start in range(0, B, max(1, size)):
        yield slice(start, start + size), space[:, :, : B - start].unbind()

"""Checks for what a reader writes from memory: values and gradients against the package's own.

Each check takes the reader's function and raises AssertionError with the first input on which it
differs, and what that input is about; a function that passes is right on all of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vidhash_lab.losses import debiased_contrastive, quadruplet
from vidhash_lab.models.hasher import binarise


def check_sign(function: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Check a straight-through sign of frame codes: (…,) -> (…,) in {-1, +1}.

    >>> check_sign(binarise)
    """
    draw = torch.Generator().manual_seed(seed)
    cases = {
        "values of both signs": torch.tensor([-3.0, -0.5, 0.5, 3.0]),
        "zero, which becomes -1": torch.zeros(2),
        "the gradient beyond 1, which is 0": torch.tensor([-1.5, 1.5]),
        "a whole batch (2, 5, 8)": torch.randn(2, 5, 8, generator=draw),
    }
    for about, x in cases.items():
        weight = torch.randn(x.shape, generator=draw)
        _compare(lambda f, x, w=weight: (f(x) * w).sum(), function, binarise, (x,), about)
        _same(function(x), binarise(x), about)


def check_debiased(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Check a debiased contrastive loss: (view1, view2, temperature, tau_plus) -> scalar.

    >>> from vidhash_lab.losses import debiased_contrastive
    >>> check_debiased(debiased_contrastive)
    """
    draw = torch.Generator().manual_seed(seed)
    views = torch.randn(2, 6, 8, generator=draw)
    apart = torch.eye(3, 4).repeat(2, 1, 1) + 0.01 * torch.randn(2, 3, 4, generator=draw)
    cases = {
        "plain InfoNCE, tau_plus 0": (*views, 0.5, 0.0),
        "codes of other lengths, which cosine does not see": (3 * views[0], views[1], 0.5, 0.0),
        "tau_plus 0.1": (*views, 0.5, 0.1),
        "a low temperature": (*views, 0.1, 0.0),
        "videos far apart, where the negatives are clamped from below": (*apart, 0.5, 0.6),
    }
    for about, (view1, view2, *rest) in cases.items():
        _compare(
            lambda f, a, b, r=tuple(rest): f(a, b, *r),
            function, debiased_contrastive, (view1, view2), about,
        )  # fmt: skip


def check_quadruplet(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Check a quadruplet loss: (codes, similar, dissimilar1, dissimilar2) -> scalar.

    >>> from vidhash_lab.losses import quadruplet
    >>> check_quadruplet(quadruplet)
    """
    draw = torch.Generator().manual_seed(seed)
    four = torch.rand(4, 5, 8, generator=draw) * 2 - 1
    right = torch.stack([torch.ones(3, 8), torch.ones(3, 8), -torch.ones(3, 8), torch.ones(3, 8)])
    cases = {
        "four codes drawn at random": four,
        "all in their places, where nothing is left to pull": right,
        "all at one place, where both margins count": torch.zeros(4, 2, 16),
    }
    for about, codes in cases.items():
        _compare(lambda f, *c: f(*c), function, quadruplet, tuple(codes), about)


def _compare(call, function, ours, inputs, about):
    """Call both on the same inputs, and compare what comes out and the gradients of all inputs."""
    value, gradients = _value_and_gradients(call, function, inputs)
    our_value, our_gradients = _value_and_gradients(call, ours, inputs)
    _same(value, our_value, about)
    for gradient, our_gradient in zip(gradients, our_gradients):
        _same(gradient, our_gradient, f"{about}: the gradient")


def _value_and_gradients(call, function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = call(function, *leaves)
    assert torch.is_tensor(value) and value.numel() == 1, "a loss is one number, in a tensor"
    if not value.requires_grad:
        return value, [torch.zeros_like(x) for x in leaves]
    return value, torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


def _same(found, expected, about):
    close = found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert close, f"{about}: expected {_short(expected)}, found {_short(found)}"


def _short(tensor):
    return [round(value, 4) for value in tensor.detach().flatten()[:4].tolist()]

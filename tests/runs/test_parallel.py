"""Trainings side by side: results in their order, of one thread each, errors raised."""

import pytest
import torch

from vidhash_lab.runs import on_all_cores


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_points_from_one_thread_each(threads):
    def power(base, exponent):
        return base**exponent, torch.get_num_threads()

    found = on_all_cores(power, ((base, 2) for base in range(5)))
    assert found == [(base**2, 1) for base in range(5)]
    assert on_all_cores(power, []) == [] and torch.get_num_threads() == threads


def test_what_a_call_raises_is_raised(threads):
    with pytest.raises(ZeroDivisionError):
        on_all_cores(lambda number: 1 / number, [(1,), (0,)])

"""Many trainings of one notebook, a core each.

A small model leaves a second core idle most of the time; two trainings side by side do not. What a
grid of whole runs needs, that they are kept, resumed and may fail, is in `sweeps`.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


def on_all_cores(
    function: Callable[..., Result], points: Iterable[tuple], what: str = "runs"
) -> list[Result]:
    """Call `function(*point)` for each point, as many at a time as torch has threads -> results.

    They come in the order of the points; each is computed in one thread. With one thread, or a GPU
    to share, the calls are made here, one after the other. What one of them raises is raised.

    >>> on_all_cores(pow, [(2, 3), (3, 2)])
    [8, 9]
    """
    import joblib
    import torch
    from tqdm.auto import tqdm

    points = list(points)
    at_once = 1 if torch.cuda.is_available() else min(torch.get_num_threads(), len(points))
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        done = joblib.Parallel(max(1, at_once), return_as="generator")(
            joblib.delayed(function)(*point) for point in points
        )
        return list(tqdm(done, total=len(points), desc=what, unit="run"))

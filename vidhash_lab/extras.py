"""The package's extras: what is installed beside the core, and what to say where it is not."""

from importlib.util import find_spec


def needs(extra: str, *modules: str) -> None:
    """Raise ModuleNotFoundError, naming the extra to install, where one of `modules` is missing.

    >>> needs("videos", "no_such_module")
    Traceback (most recent call last):
    ModuleNotFoundError: no_such_module is not installed. Run: pip install 'vidhash-lab[videos]'
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        told = f"{', '.join(missing)} is not installed. Run: pip install 'vidhash-lab[{extra}]'"
        raise ModuleNotFoundError(told, name=missing[0])

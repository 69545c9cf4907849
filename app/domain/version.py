"""Which version this is."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("parley")
    except PackageNotFoundError:  # run from its folder, as `make run` does
        return "0.1.0"


VERSION = _version()

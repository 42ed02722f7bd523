"""What the process that workers are forked from by "forkserver" has imported, the way they start since Python 3.14.

It is a bare Python by default, so that every worker of every epoch imports PyTorch anew, three seconds of a core each.
With PyTorch and this package imported there, once, a worker starts in some tenths of a second and shares their
memory with the others.
"""

from multiprocessing import forkserver
from typing import Any, Final

__all__ = ["preload_for_workers"]

_DEFAULT: Final = ["__main__"]
_MODULES: Final = ["s3dataset._datasets._loader"]  # which imports PyTorch


def preload_for_workers(context: Any) -> None:
    """Before workers of a `multiprocessing` context start; changes nothing where the program says what is preloaded.

    A fork server that runs already stays as it is.
    """
    # Python tells nobody what is preloaded, but here.
    server = getattr(forkserver, "_forkserver", None)
    if context.get_start_method() == "forkserver" and getattr(server, "_preload_modules", None) == _DEFAULT:
        forkserver.set_forkserver_preload([*_DEFAULT, *_MODULES])

"""The one place where Open3D is imported."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType


def load_open3d() -> ModuleType:
    """Import Open3D and return the module.

    Open3D's Linux wheels link against libusb (for depth cameras, which nothing here uses), a system library that
    minimal machines lack. The ``libusb-package`` wheel carries it, so no system package is needed.

    Raises:
        ImportError: when Open3D itself cannot be loaded, with what to install.
    """
    if "open3d" not in sys.modules and sys.platform == "linux":
        import libusb_package

        # RTLD_GLOBAL: Open3D's own library finds the symbols in the process instead of the system.
        library = libusb_package.get_library_path()
        if library is not None:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise ImportError(
            f"Open3D cannot be loaded ({error}); meshes need it: `pip install open3d` and, on Debian, "
            "`apt-get install libgl1 libgomp1 libx11-6`"
        ) from error
    return open3d

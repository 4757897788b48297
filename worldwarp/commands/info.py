"""`worldwarp paths` and `worldwarp doctor`."""

from __future__ import annotations

import textwrap
from shutil import get_terminal_size

from worldwarp.arguments import (
    ConfigError,
)

PATH_EXAMPLES = {
    "out_and_back": "a safe first look: ahead and back",
    "orbit:angle_deg=15": "around a subject, less than by default",
    "left:distance=0.15,right:distance=0.3": "from side to side",
    "forward+pan:angle_deg=20": "ahead while looking to the right",
    "look_around,forward:frames=33": "turn on the spot, then go ahead slowly",
    "auto": "chosen as it goes: to what is new beside what is known",
    "keys": "drive with the keyboard, a chunk per key",
    "camera_path.json": "along a camera path of nerfstudio",
}


def paths_command(words: list[str]) -> int:
    """`worldwarp paths`: the values of `path=`."""
    from geometry.trajectory.path_text import PRESETS

    _check_no_arguments("paths", words)
    print("Moves, with their defaults (distance 1 is the photo's median depth):")
    width = max(get_terminal_size().columns - 1, 60)
    for name, preset in PRESETS.items():
        given = {"distance": preset.distance, "angle_deg": preset.angle_deg, "frames": preset.frames}
        shown = " ".join(f"{key}={value:g}" for key, value in given.items() if value is not None)
        print(f"  {name:<13} {shown}")
        print(textwrap.fill(preset.description, width, initial_indent=" " * 16, subsequent_indent=" " * 16))
    print("Set them with colons, join moves with ',' (one after the other) and '+' (at the same time):")
    for path, purpose in PATH_EXAMPLES.items():
        print(f"  path={path:<38} {purpose}")
    print("Files: our keyframes, nerfstudio transforms.json and camera_path.json, COLMAP folders, TUM, RealEstate10K,")
    print("  .npy pose stacks with convention=c2w_opencv|c2w_opengl|w2c_opencv|w2c_opengl")
    print("  8 columns that do not tell the order of their quaternion with convention=tum_xyzw|tum_wxyz")
    print("  path_scale=0.2 (or auto) fits a file's unit to the photo's: its median depth, or a meter for metric depth")
    return 0


def doctor_command(words: list[str]) -> int:
    """`worldwarp doctor`: installed and missing parts."""
    from worldwarp.doctor import diagnosis

    _check_no_arguments("doctor", words)
    for line in diagnosis():
        print(line)
    return 0


def _check_no_arguments(command: str, words: list[str]) -> None:
    if words:
        raise ConfigError(f"{command}: takes no arguments, got {' '.join(words)}")

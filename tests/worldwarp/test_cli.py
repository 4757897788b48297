"""The command line: consoles, shells and file names; wrong settings are refused without loading torch."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import worldwarp
from tests.helpers import REPOSITORY, command_line, program_environment, write_photo
from worldwarp.arguments import (
    check_image,
    command_words,
    default_folder,
    folder_and_settings,
    frame_size,
    items,
    nearest,
    pasted,
    user_path,
)
from worldwarp.cli import main
from worldwarp.commands.info import PATH_EXAMPLES
from worldwarp.config import ConfigError, build, check_explore, compose_config
from worldwarp.console import open_console
from worldwarp.pages import PAGES, TRAININGS, has_conf

CONSOLES = {
    "a pipe": {},
    "LC_ALL=C": {"LC_ALL": "C"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252, no display": {"PYTHONIOENCODING": "cp1252", "DISPLAY": "", "WAYLAND_DISPLAY": ""},
    "latin-1, narrow": {"PYTHONIOENCODING": "latin-1", "COLUMNS": "20"},
}
CHEAP = {  # command line, and a part of its output
    "": "The first command",
    "--help": "worldwarp explore PHOTO PATH",
    "--version": "worldwarp ",
    "paths": "orbit",
    "explore --help": "out_and_back",
    "explore photo.jpg -h": "Examples",
    "export --help": "gaussians_ply",
    "view nope": "no such folder or file 'nope'",
    "export nope": "no such folder 'nope'",
    "render nope": "no such folder 'nope'",
    "render": "want the folder of a world, and a path, got nothing",
    "render nope orbit up": "want the folder of a world, and a path, got nope orbit up",
    "render nope orbitt": "did you mean orbit",
    "render nope alpha=known": "alpha: MP4 holds none, got alpha=known",
    "render --help": "the path that was walked, larger",
    "undo nope": "no such folder 'nope'",
    "forget nope chunks=1": "no such folder 'nope'",
    "forget nope": "say what to take out",
    "forget nope chunks=a": "chunks: want a whole number, got 'a'",
    "forget nope region=1,2": "region: want six numbers, low corner then high corner, got '1,2'",
    "view nope mode=page": "mode: want auto, native or web, got 'page'",
    "view nope port=0": "port: want a whole number from 1 to 65534, got 0",
    "export nope format=glb": "did you mean `formats`?",
    "undo nope once=1": "undo: want a folder alone, got once=1 too",
    "train": "train: want a stage, got nothing; valid are: depth, generator,",
    "train generater": "did you mean `generator`?",
    "train depth steps=many": "steps: want a number, got 'many'",
    "train depth stepps=9": "there is no setting 'stepps'; did you mean `steps`?",
    "train depth output=x": "did you mean `out`?",
    "train vae out=": "out: want a value, got none; leave out= out for runs/vae",
    "train generator batch=0": "batch: want a whole number from 1",
    "train depth device=cuda": "there is no setting 'device'",
    "render-data plan=towm": "plan: want tracks-and-rooms, towns, still-lifes, panoramas, stills or orbits, got 'towm'",
    "render-data worker=2 workers=2": "worker: want a whole number from 0 to 1, got 2",
    "render-data runs": "'runs': want key=value",
    "import-video": "images: want a folder of frames, got nothing; add images=...",
    "import-video images=a": "cameras: want the file of the frames' cameras, got nothing; add cameras=...",
    "import-video images=a cameras=b every=0": "every: want a whole number from 1",
    "import-video images=a cameras=b depth=file": "depth: want an estimator for the frames of a video, got a file",
    "import-video images=a cameras=b camera=c": "there is no setting 'camera'; did you mean `cameras`?",
    "import-video --help": "embedded",
    "unpack-data shard=x": "did you mean `shards`?",
    "explore": "image: want a photo",
    "explore orbit": "want a photo first",
    "explore nope.jpg": "image: no file 'nope.jpg'; check the name",
    "explore https://example.com/a.jpg": "download it first",
    "explore photo.jpg orbitt": "did you mean orbit",
    "explore photo.jpg nope.json": "path: no file or folder 'nope.json'",
    "explore photo.jpg left:angle_deg=3": "angle_deg: left has no angle_deg",
    "explore photo.jpg imagee=x": "did you mean `image`?",
    "explore photo.jpg resolution=9": "did you mean `size`?",
    "explore photo.jpg prompt=castle": "this generator takes no text",
    "explore photo.jpg fps=0": "fps: want a number from 1 to 120",
    "explore photo.jpg size=100x320": "try size=96x320",
    "explore photo.jpg size=20": "a longer side of 32 pixels or more",
    "explore photo.jpg size=1,2,3": "size: want the longer side",
    "explore photo.jpg device=tpu": "device: want cpu or cuda",
    "explore photo.jpg frames=1": "frames: want a whole number",
    "explore photo.jpg seed=one": "seed: want a number",
    "explore photo.jpg out=full": "out: full is not empty",
    "explore photo.jpg depth=file": "depth.path: depth=file needs one (PNG",
    "explore photo.jpg depth=transformers depth.checkpoint=": "depth.checkpoint: depth=transformers needs one",
    "explore cameras.json video=clip.mp4": "video: want a clip or a photo, got both, 'cameras.json' as the photo",
    "explore photo.jpg generator=wan generator.pretrained=null": "generator.pretrained: generator=wan needs one",
    "train latents takes=0": "takes: want a whole number from 1",
    "render-data frames=2": "frames: want a whole number from 5",
    "explore photo.jpg depth=transformers": "depth.checkpoint: depth=transformers needs one",
    "explore photo.jpg path=": "path: want a value, got none; leave path= out for out_and_back",
    "explore photo.jpg viewer=natives": "viewer: there is no 'natives'; did you mean `native`?",
    "explore photo.jpg viewer.port=0": "viewer.port: want a whole number from 1 to 65534",
    "explore photo.jpg viewer.open=maybe": "viewer.open: want true or false",
    "explore photo.jpg viewer=remote": "viewer.url: viewer=remote needs one",
    "explore photo.jpg depth.path=d.npy": "it belongs to depth=file",
    "explore resume=nope": "resume: no such folder 'nope'",
    "explore resume=nope viewer=remote": "viewer.url: viewer=remote needs one",
    "models list": "checkpoints/self_forcing_dmd.pt",
    "models": "want what to do, got nothing; valid are: list, convert, toy",
    "models list all": "takes no arguments, got all",
    "models convert": "want a file, got none",
    "models convert nope.pt": "no file or folder 'nope.pt'; check the name",
    "models convert photo.jpg line=nope": "line: want auto, wan, ti2v",
    "models convert photo.jpg precision=int4": "precision: want line, wan, bf16 or float32, got 'int4'",
    "models convert photo.jpg lin=wan": "did you mean `line`?",
    "models toy": "want one folder, got none",
    "models toy toy seed=x": "seed: want a number, got 'x'",
    "version": "did you mean `--version`?",
    "photo.jpg orbit": "did you mean `worldwarp explore photo.jpg orbit`?",
}
ANSWERS = """
import contextlib, io, json, sys
from worldwarp.cli import main
for typed in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(typed.split())
    print(json.dumps([typed, code, out.getvalue(), err.getvalue(), "torch" in sys.modules]))
"""


def run(folder: Path, words: Sequence[str | bytes], **more: str) -> subprocess.CompletedProcess[bytes]:
    environment = program_environment(**more)
    return subprocess.run(command_line(words), cwd=folder, env=environment, capture_output=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a photo and a folder that is not empty."""
    write_photo(tmp_path / "photo.jpg")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    return tmp_path


def test_help_and_refusals_are_short_and_do_not_load_torch(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS], cwd=place, env=program_environment(), input=json.dumps(list(CHEAP)).encode(),
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [typed for typed, *_ in answers] == list(CHEAP)
    for typed, code, out, err, torch_loaded in answers:
        assert CHEAP[typed] in out + err, (typed, out, err)
        assert not torch_loaded, typed
        assert code == (2 if err else 0), (typed, err)
        if err:
            assert not out
            assert len(err.splitlines()) == 1, err
            assert err.startswith("worldwarp: ")
            assert "_target_" not in err


@pytest.mark.parametrize("console", CONSOLES)
def test_every_console_encoding_is_supported(place: Path, console: str) -> None:
    commands = {"paths": 0, "explore --help": 0, "explore ü▂.jpg": 2}
    code = "import json, sys\nfrom worldwarp.cli import main\nprint([main(t.split()) for t in json.loads(sys.argv[1])])"
    command = [sys.executable, "-c", code, json.dumps(list(commands))]
    environment = program_environment(**CONSOLES[console])
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    encoding = CONSOLES[console].get("PYTHONIOENCODING", "utf-8")
    assert done.stdout.decode(encoding).endswith(f"{list(commands.values())}\n")
    refusal = done.stderr.decode(encoding)
    assert refusal.startswith("worldwarp: image: ")
    assert ("'?2.jpg'" in refusal) == (encoding == "ascii")


def test_characters_outside_an_encoding_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[ ▁▂█] 60° … é \udce9\n"
    shown = {"ascii": b"[ 128] 60 deg ... ? \xe9\n", "latin-1": b"[ 128] 60\xb0 ... \xe9 \xe9\n"}
    shown["utf-8"] = "[ ▁▂█] 60° … é ".encode() + b"\xe9\n"
    for encoding, expected in shown.items():
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding, newline="\n"))
        open_console()
        sys.stdout.write(text)
        assert buffer.getvalue() == expected  # line-buffered


def test_a_closed_output_pipe_is_no_error(place: Path) -> None:
    command = f"{sys.executable} -m worldwarp.cli explore --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=place, env=program_environment(), capture_output=True, check=True)
    assert done.stdout.startswith(b"worldwarp explore")
    assert done.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_waiting_fits_a_narrow_terminal_and_is_cleared() -> None:
    import fcntl
    import pty
    import struct
    import termios

    terminal, other = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    code = "import time\nfrom worldwarp.console import waiting\nwith waiting('reading the photo and its depth'):\n    "
    child = subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(2.3)"], stderr=other, env=program_environment(COLUMNS="30")
    )
    child.wait()
    os.close(other)
    drawn = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "00:00" in drawn
    assert "00:01" in drawn
    lines = [line for line in drawn.split("\r") if line.strip()]
    assert max(map(len, lines)) < 30
    assert "\n" not in drawn
    assert drawn.endswith(" \r")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_exploring_a_photo_whose_name_is_not_utf8_with_output_to_a_log(place: Path) -> None:
    name = b"caf\xe9, ${x} = a\\b 'n' [1].jpg"
    (place / "photo.jpg").rename(os.fsdecode(os.fsencode(place) + b"/" + name))
    words = [b"explore", name, b"left", b"size=48,80", b"frames=4", b"chunk=3", b"depth=plane", b"viewer=none"]
    done = run(place, [*words, b"generator=passthrough", b"prior=smooth", b"detail=1"], PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    world = place / "worlds" / "caf_, ${x} = a\\b 'n' [1]"
    assert (world / "world.json").is_file()
    assert done.stdout.isascii()
    lines = done.stderr.decode("ascii").splitlines()
    assert "reading the photo and estimating its depth ..." in lines
    assert lines[-1] == "writing the video ..."
    assert any(re.match(r"3 of 3 frames, .* chunk 1, \d+% new", line) for line in lines), lines
    hints = [line.split("worldwarp ", 1)[1] for line in done.stdout.decode().splitlines() if "worldwarp " in line]
    assert hints == [pasted("view", Path("worlds") / world.name), pasted("export", Path("worlds") / world.name)]


NAMES = ["a\\b.jpg", r"\\nas\photos\a.jpg", "a${b}.jpg", r"a\${b}", "a=b, 'c' \"d\" [e].jpg", "ü.jpg", "~x"]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_are_kept_literally(name: str) -> None:
    config = compose_config("explore", [f"image={name}", f"out={name}", "depth=file", f"depth.path={name}"])
    assert (config.image, config.out, config.depth.path) == (name, name, name)
    assert compose_config("explore", [f"generator.weights={name}"]).generator.weights == name


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    keys = ["image", "path", "out", "resume", "depth.path", "generator.weights"]
    config = compose_config("explore", ["depth=file", *(f"{key}=~/x" for key in keys)])
    assert [config.image, config.path, config.out, config.resume] == [str(tmp_path / "x")] * 4
    assert [config.depth.path, config.generator.weights] == [str(tmp_path / "x")] * 2
    assert folder_and_settings("view", ["~/w"])[0] == tmp_path / "w"
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'w'}: no such folder")):
        worldwarp.World.load("~/w")


def test_a_folder_whose_name_is_not_utf8_is_refused_and_never_a_default() -> None:
    with pytest.raises(ConfigError, match=r"out: want a name of UTF-8 characters, got 'w\\udce9'"):
        user_path("out", "w\udce9")
    assert default_folder("photos/caf\udce9.jpg") == Path("worlds/caf_")
    assert default_folder("photos/café.jpg") == Path("worlds/café")


@pytest.mark.parametrize(
    ("text", "size"),
    [("480,720", (480, 720)), ("480x720", (480, 720)), ("[480, 720]", (480, 720)), ("720", 720), (720, 720),
     ((192, 320), (192, 320)), (None, None)],
)  # fmt: skip
def test_sizes_are_one_or_two_numbers(text: object, size: object) -> None:
    assert frame_size(text) == size


@pytest.mark.parametrize("text", ["a", "1,2,3", "-4", "480,b", "", True, 4.5, "480x"])
def test_an_invalid_size_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="size: want"):
        frame_size(text)


def test_lists_have_brackets_or_not() -> None:
    assert items("glb,mp4") == items("[glb, mp4]") == items(" glb ,mp4,") == ["glb", "mp4"]
    assert items("") == items("[]") == []


def test_bare_words_are_the_photo_and_the_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "made").mkdir()
    (place / "made" / "world.json").touch()
    shutil.copy(place / "photo.jpg", place / "x=1.jpg")
    words = ["photo.jpg", "orbit:angle_deg=20", "seed=1"]
    assert command_words(words) == ["image=photo.jpg", "path=orbit:angle_deg=20", "seed=1"]
    assert command_words(["seed=1", "image=photo.jpg", "left"]) == ["path=left", "seed=1", "image=photo.jpg"]
    assert command_words(["made", "up"]) == ["path=up", "resume=made"]
    assert command_words(["resume=made", "up"]) == ["path=up", "resume=made"]
    assert command_words(["x=1.jpg"]) == ["image=x=1.jpg"]
    with pytest.raises(ConfigError, match="got 'orbit' too"):
        command_words(["photo.jpg", "left", "orbit"])
    with pytest.raises(ConfigError, match=r"want one photo, got a\.jpg b\.jpg"):
        command_words(["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    ("image", "message"),
    [("clip.MP4", "got the video"), ("HTTPS://a.b/c.jpg", "download it first"), ("full", "got the folder"),
     ("[a.jpg,b.jpg]", "got 2 files"), ("a.jpg", "no file")],
)  # fmt: skip
def test_a_file_that_is_no_photo_is_refused_with_its_kind(
    image: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=message):
        check_image(image)


def test_an_error_of_a_component_is_passed_through(place: Path) -> None:
    (place / "d.png").touch()
    words = [f"image={place / 'photo.jpg'}", "depth=file", f"depth.path={place / 'd.png'}"]
    config = compose_config("explore", words)
    check_explore(config)
    with pytest.raises(ValueError, match=r"^depth.path: .* is empty"):
        build(config, "depth")


def test_synonyms_point_to_settings_and_commands_that_exist() -> None:
    assert nearest("resolution", ["size", "image"]) == "did you mean `size`?"
    assert nearest("gausians", ["points", "gaussians"]) == "did you mean `gaussians`?"
    assert nearest("xyz", ["size", "image"]) == "valid are: image, size"
    assert nearest("xyz", ["size", "image"], ["image"]) == "valid are: image"


@pytest.mark.parametrize("command", PAGES)
def test_every_command_has_a_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([command, "--help"], [command, "x", "y=1", "-h"], ["help", command]):
        assert main(words) == 0
        page = capsys.readouterr().out
        assert page.startswith(f"worldwarp {command}")
        assert all(example in page for example in PAGES[command].examples.values())
        names = [f"train/{stage}" for stage in TRAININGS] if command == "train" else [command.replace("-", "_")]
        settings = {key for name in names if has_conf(name) for key in compose_config(name, [])}
        assert all(re.search(rf"\b{key}[:=]", page) for key in settings)


def test_public_names_are_imported_on_access() -> None:
    assert set(worldwarp.__all__) <= set(dir(worldwarp))
    for name in worldwarp.__all__:
        assert getattr(worldwarp, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Wrld'"):
        _ = worldwarp.Wrld  # type: ignore[attr-defined]  # misspelt


def documented_commands() -> list[str]:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    lines += [example for page in PAGES.values() for example in page.examples.values()]
    lines += [f'worldwarp explore photo.jpg "path={path}"' for path in PATH_EXAMPLES]
    return [*lines, f"worldwarp {pasted('export', 'my world, (1)', 'formats=glb,mp4')}"]


def words_in(shell: Sequence[str], folder: Path) -> list[str]:
    """The arguments that the programs of the documented commands receive in a shell."""
    log, stubs = folder / "log", folder / ".venv" / "bin"
    stubs.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    for name in ("worldwarp", "make"):
        (stubs / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" "" >> "{log}"\n')
        (stubs / name).chmod(0o755)
    script = "\n".join(documented_commands())
    paths = f"{stubs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([*shell, script], cwd=folder, env=program_environment(PATH=paths, HOME=str(folder)), check=True)
    return log.read_text(encoding="utf-8").split("\n\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("shell", [["zsh", "-fc"], ["fish", "--no-config", "-c"], ["pwsh", "-NoProfile", "-Command"]])
def test_documented_commands_give_the_same_arguments_in_every_shell(shell: list[str], tmp_path: Path) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    expected = words_in(["bash", "-c"], tmp_path)
    assert len(expected) == len(documented_commands()) + 1  # what follows the last one is empty
    assert words_in(shell, tmp_path) == expected


def test_documented_commands_have_no_unquoted_special_characters() -> None:
    assert len(documented_commands()) > 30
    for line in documented_commands():
        bare = re.sub(r"\"[^\"$`\\]*\"|'[^']*'", "", line)
        assert not re.search(r"[][?*~#,;(){}$&|<>\\]", bare), line

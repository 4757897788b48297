"""`worldwarp render`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from worldwarp.arguments import ConfigError, check_world, pasted, split_words, user_path
from worldwarp.commands.signals import handled_signals
from worldwarp.config import compose_config
from worldwarp.console import Progress, waiting
from worldwarp.render_settings import render_settings


def render_command(words: list[str]) -> int:
    """`worldwarp render DIR PATH key=value`: render a stored world along a path."""
    bare, given = split_words(words)
    takes_path = not any(word.startswith("path=") for word in given)
    if not 1 <= len(bare) <= 1 + takes_path:
        got = " ".join(bare) or "nothing"
        raise ConfigError(
            f"render: want the folder of a world, and a path, got {got}; e.g. `worldwarp render worlds/mine orbit`"
        )
    folder = user_path("render", bare[0])
    settings = render_settings(compose_config("render", [*(f"path={word}" for word in bare[1:]), *given]))
    check_world("render", folder)

    from worldwarp.api import World
    from worldwarp.render import Job

    with _interrupted_by_signals():
        with waiting("opening the world"):
            world = World.load(folder)
            job = Job.of(world.record, lambda: world.rendered, settings)
        with waiting("looking along the path (the first run compiles its kernels)"):
            plan = job.plan()
        for line in plan.lines():
            print(line)
        try:
            with Progress(plan.frames) as progress:
                done = job.run(lambda count, unknown: progress.reach(count, f"{unknown:.1%} unknown"))
        except KeyboardInterrupt:
            print(f"stopped; the finished frames wait in {job.waiting}, and the same command goes on:", file=sys.stderr)
            print(f"  worldwarp {pasted('render', *words)}", file=sys.stderr)
            raise
    for line in done.lines():
        print(line)
    return 0


def _interrupted_by_signals() -> AbstractContextManager[None]:
    """A process that is asked to end stops as by Ctrl-C."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    return handled_signals(interrupt, "SIGTERM", "SIGHUP")

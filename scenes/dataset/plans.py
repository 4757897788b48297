"""Plans of data sets: scene, split, camera move and seed of each clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenes.synthetic import panoramas, torcs
from scenes.synthetic.camera_moves import ORBIT_DEGREES, ORBITS, STILLS, choose_move
from scenes.synthetic.rooms import factory as rooms
from scenes.synthetic.still_lifes import factory as still_lifes
from scenes.synthetic.towns import factory as towns

CLIP_FRAMES, LONG_CLIP_FRAMES, LONG_CLIPS = 12, 41, 12
CLIPS_PER_SCENE_VISIT = 4  # consecutive clips of one scene, so that a scene is loaded once for several clips
_VISITS_PER_CYCLE = 10  # visits per shuffled cycle, of which one is held out
_ROOM_VISITS = 4  # of a cycle; the others, but for the held-out one, are tracks
# First clip index of each plan, far apart, so that clips of all plans fit into one folder.
_FIRST_TOWN_CLIP, _FIRST_PANORAMA_CLIP, _FIRST_STILL_LIFE_CLIP, _FIRST_STILLS = 50_000, 70_000, 80_000, 100_000
_FIRST_ORBITS = 200_000
_PREFIXES = {rooms.SOURCE: "room", towns.SOURCE: "town", still_lifes.SOURCE: "still-life"}  # of names of scenes
_STILLS_OF_SCENE = {torcs.SOURCE: 8, rooms.SOURCE: 5, towns.SOURCE: 8, still_lifes.SOURCE: 3}


@dataclass(frozen=True)
class ClipPlan:
    """Plan of one clip; it determines the frames completely.

    Attributes:
        index: number of the clip in its folder.
        source: source of the scene, e.g. ``torcs.SOURCE``.
        scene: name of the scene within its source.
        split: ``train``, ``heldout`` or ``estimated``.
        move: name of the camera move.
        frames: number of frames.
        seed: seed of the camera path and of all random choices.
    """

    index: int
    source: str
    scene: str
    split: str
    move: str
    frames: int
    seed: int

    @property
    def file_name(self) -> str:
        """Name of the clip's file."""
        return f"clip_{self.index:05d}.safetensors"


def plan_clips(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` clips of a seed; any prefix has balanced sources, scenes, moves and splits.

    Each visit of a scene gives four clips. Even and odd visits use different tracks, so that two processes do not load
    the same ones.
    """
    plans: list[ClipPlan] = []
    visits, lane_visits, held_out_visits, room_visits, long_clips = 0, [0, 0], 0, 0, 0
    lanes = [_shuffled_tracks(seed, lane) for lane in (0, 1)]
    while len(plans) < clips:
        cycle, within = divmod(visits, _VISITS_PER_CYCLE)
        kinds = ["held-out"] + ["room"] * _ROOM_VISITS + ["track"] * (_VISITS_PER_CYCLE - 1 - _ROOM_VISITS)
        kind = [kinds[i] for i in np.random.default_rng([seed, 1, cycle]).permutation(len(kinds))][within]
        lane = visits % 2
        split = "train"
        if kind == "held-out":
            split, turn = "heldout", held_out_visits // 2
            in_room = held_out_visits % 2 == 1
            source = rooms.SOURCE if in_room else torcs.SOURCE
            choices = [f"room-{s}" for s in rooms.HELD_OUT_SEEDS] if in_room else list(torcs.HELD_OUT_TRACKS)
            scene = choices[turn % len(choices)]
            held_out_visits += 1
        elif kind == "room":
            source, scene = rooms.SOURCE, f"room-{room_visits}"
            room_visits += 1
        else:
            source, scene = torcs.SOURCE, lanes[lane][lane_visits[lane] % len(lanes[lane])]
            lane_visits[lane] += 1
        for i in range(CLIPS_PER_SCENE_VISIT):
            # The rollout benchmarks need long clips of scenes that were never trained on.
            long = split == "heldout" and i == CLIPS_PER_SCENE_VISIT - 1 and long_clips < LONG_CLIPS
            long_clips += long
            index = len(plans)
            # Streams of their own: another draw of moves leaves the clips' seeds alone.
            clip_seed = int(np.random.default_rng([seed, 2, index]).integers(2**31))
            move = choose_move(np.random.default_rng([seed, 3, index]))
            frames = LONG_CLIP_FRAMES if long else CLIP_FRAMES
            plans.append(ClipPlan(index, source, scene, split, move, frames, clip_seed))
        visits += 1
    return plans[:clips]


def plan_town_clips(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` clips of towns, with indices apart from ``plan_clips``; one visit in ten is held out."""
    plans: list[ClipPlan] = []
    for visit in range(math.ceil(clips / CLIPS_PER_SCENE_VISIT)):
        cycle, within = divmod(visit, _VISITS_PER_CYCLE)
        held_out = within == np.random.default_rng([seed, 5, cycle]).integers(_VISITS_PER_CYCLE)
        town = towns.HELD_OUT_SEEDS[cycle % len(towns.HELD_OUT_SEEDS)] if held_out else visit
        for _ in range(CLIPS_PER_SCENE_VISIT):
            index = _FIRST_TOWN_CLIP + len(plans)
            clip_seed = int(np.random.default_rng([seed, 2, index]).integers(2**31))
            move = choose_move(np.random.default_rng([seed, 3, index]))
            split = "heldout" if held_out else "train"
            plans.append(ClipPlan(index, towns.SOURCE, f"town-{town}", split, move, CLIP_FRAMES, clip_seed))
    return plans[:clips]


def plan_panorama_clips(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` clips of panoramas; every second clip is a pan."""
    plans: list[ClipPlan] = []
    for number in range(clips):
        index = _FIRST_PANORAMA_CLIP + number
        clip_seed = int(np.random.default_rng([seed, 2, index]).integers(2**31))
        move = "pan" if number % 2 == 0 else choose_move(np.random.default_rng([seed, 3, index]))
        scene = panoramas.NAMES[number // CLIPS_PER_SCENE_VISIT % len(panoramas.NAMES)]
        plans.append(ClipPlan(index, panoramas.SOURCE, scene, "estimated", move, CLIP_FRAMES, clip_seed))
    return plans


def plan_still_life_clips(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` clips of still lifes; none are held out, as their benefit is evaluated on photographs."""
    plans: list[ClipPlan] = []
    for number in range(clips):
        index = _FIRST_STILL_LIFE_CLIP + number
        clip_seed = int(np.random.default_rng([seed, 2, index]).integers(2**31))
        move = choose_move(np.random.default_rng([seed, 3, index]))
        plans.append(ClipPlan(index, still_lifes.SOURCE, f"still-life-{number}", "train", move, CLIP_FRAMES, clip_seed))
    return plans


def plan_stills(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` files of single views, each of another scene but for tracks; all are for training.

    A depth network learns more from a new scene than from another view of one it has seen, so sources take turns and
    no room, town or still life comes twice, nor in another plan.
    """
    tracks = _shuffled_tracks(seed, 0) + _shuffled_tracks(seed, 1)
    plans: list[ClipPlan] = []
    for number in range(clips):
        index = _FIRST_STILLS + number
        source = list(_STILLS_OF_SCENE)[number % len(_STILLS_OF_SCENE)]
        turn = number // len(_STILLS_OF_SCENE)
        scene = tracks[turn % len(tracks)] if source == torcs.SOURCE else f"{_PREFIXES[source]}-{_FIRST_STILLS + turn}"
        clip_seed = int(np.random.default_rng([seed, 2, index]).integers(2**31))
        plans.append(ClipPlan(index, source, scene, "train", STILLS, _STILLS_OF_SCENE[source], clip_seed))
    return plans


def plan_orbits(clips: int, seed: int) -> list[ClipPlan]:
    """The first ``clips`` orbits around what is ahead, in held-out rooms, towns and tracks by turns."""
    scenes = {
        rooms.SOURCE: [f"room-{number}" for number in rooms.HELD_OUT_SEEDS],
        towns.SOURCE: [f"town-{number}" for number in towns.HELD_OUT_SEEDS],
        torcs.SOURCE: list(torcs.HELD_OUT_TRACKS),
    }
    plans: list[ClipPlan] = []
    for number in range(clips):
        turn, of = divmod(number, len(scenes))
        source = list(scenes)[of]
        scene = scenes[source][turn % len(scenes[source])]
        clip_seed = int(np.random.default_rng([seed, 6, number]).integers(2**31))
        frames = len(ORBIT_DEGREES)
        plans.append(ClipPlan(_FIRST_ORBITS + number, source, scene, "heldout", ORBITS, frames, clip_seed))
    return plans


PLANS: dict[str, Callable[[int, int], list[ClipPlan]]] = {
    "tracks-and-rooms": plan_clips,
    "towns": plan_town_clips,
    "still-lifes": plan_still_life_clips,
    "panoramas": plan_panorama_clips,
    "stills": plan_stills,
    "orbits": plan_orbits,
}


def _shuffled_tracks(seed: int, lane: int) -> list[str]:
    """Training tracks of even (``lane`` 0) or odd (``lane`` 1) visits, in random order."""
    names = [t for t in torcs.TRACKS if t not in torcs.HELD_OUT_TRACKS]
    order = np.random.default_rng([seed, 4]).permutation(len(names))
    return [names[i] for i in order][lane::2]

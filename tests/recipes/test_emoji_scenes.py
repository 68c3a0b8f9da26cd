"""Scenes, grounds and captions say and show the same thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoji_captions import describe, describe_plainly
from emoji_data import Emoji
from emoji_grounds import COLOURS, TEXTURES, WHITE, Ground, draw_ground, with_article
from emoji_latents import many_scenes, paint, single_scenes
from emoji_scenes import (
    FEW,
    LAYOUTS,
    Placed,
    Scene,
    box_of,
    draw_scene,
    held_out_pair,
    held_out_tone,
    thirds,
)
from musiva.core.errors import InvalidInput
from tests.recipes.fakes import few_emoji


def emoji(label: str, *names: str, tags: tuple[str, ...] = ()) -> Emoji:
    return Emoji(label.encode().hex(), label, names, tags, 0, False, b"")


def many(count: int, tone: int = 0) -> list[Emoji]:
    return [replace(emoji(f"thing {i}"), tone=tone) for i in range(count)]


FOX, PINE = emoji("fox", tags=("animal", "face")), emoji("evergreen tree", "pine tree")


def single(index: int = 0, ground: Ground = WHITE) -> Scene:
    return Scene("single", (Placed(index, LAYOUTS["single"][0]),), ground)


def said(scene: Scene, known: list[Emoji], times: int = 400) -> set[str]:
    rng = np.random.default_rng(0)
    return {describe(scene, known, rng) for _ in range(times)}


def test_captions_of_one_name_the_thing_and_the_ground() -> None:
    white = said(single(), [FOX])
    assert {"fox", "a fox", "fox emoji", "an emoji of a fox"} <= white
    vague = [text for text in white if "fox" not in text and "white" not in text]
    assert all({"animal", "face"} <= set(text.split(", ")) for text in vague)
    assert len(white) > 15
    blue = said(single(ground=Ground("plain", ("blue",))), [FOX])
    assert all("blue" in text for text in blue)
    assert "a pine tree" in said(single(), [PINE])
    assert describe_plainly(single(ground=Ground("grass")), [FOX]) == "fox on grass"


def test_captions_of_two_keep_their_sides() -> None:
    left, right = LAYOUTS["beside"]
    scene = Scene("beside", (Placed(0, left), Placed(1, right)), Ground("grass"))
    texts = said(scene, [FOX, PINE])
    assert "a fox left of a pine tree on grass" in texts
    assert "an evergreen tree right of a fox on grass" in texts
    for text in texts:
        tree = text.find("pine") if "pine" in text else text.find("evergreen")
        sides = ("left of", "to the left of", "next to", " and ")
        if " right of " in text or " to the right of " in text:
            assert tree < text.index("fox"), text
        elif any(side in text for side in sides) and "on the" not in text:
            assert text.index("fox") < tree, text
    plain = describe_plainly(scene, [FOX, PINE])
    assert plain == "a fox on the left and an evergreen tree on the right on grass"


def test_articles() -> None:
    nouns = ("apple", "fox", "glasses", "bus", "cactus", "cross", "tennis")
    assert [with_article(noun) for noun in nouns] == [
        "an apple", "a fox", "glasses", "a bus", "a cactus", "a cross", "a tennis",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [*TEXTURES, "gradient", "checkered", "striped", "dotted"])
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (31, 17)])
def test_grounds_cover_any_size_and_follow_their_stream(kind: str, size: tuple[int, int]) -> None:
    ground = Ground(kind, () if kind in TEXTURES else ("red", "blue"))
    first, again, other = (ground.render(*size, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, *size)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(first, again)
    if kind not in ("sunset", "checkered"):
        assert not np.array_equal(first, other)


def test_plain_grounds_have_their_colour() -> None:
    for name, rgb in COLOURS.items():
        painted = Ground("plain", (name,)).render(4, 5, np.random.default_rng(0))
        assert np.allclose(painted[:, 3, 4] * 255, rgb)


def test_drawn_grounds_are_of_every_kind_and_never_white() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_ground(rng) for _ in range(2000)]
    assert WHITE not in drawn
    kinds = {ground.kind for ground in drawn}
    assert kinds == {"plain", "gradient", "checkered", "striped", "dotted", *TEXTURES}
    assert all(len(set(ground.colours)) == len(ground.colours) for ground in drawn)


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_a_few_things_are_one_or_two_and_often_on_white(size: tuple[int, int]) -> None:
    scenes = many_scenes(many(30), "few", 300, size, seed=1)
    assert {len(scene.placed) for scene in scenes} == {1, 2}
    assert {scene.layout for scene in scenes} == set(FEW)
    assert 0.3 < np.mean([scene.ground == WHITE for scene in scenes]) < 0.5
    assert scenes == many_scenes(many(30), "few", 300, size, seed=1)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (96, 128), (128, 96)])
def test_scenes_stay_inside_and_apart(size: tuple[int, int]) -> None:
    known = many(40)
    weights, rng = np.full(40, 1 / 40), np.random.default_rng(0)
    layouts = set()
    for _ in range(400):
        scene = draw_scene(known, weights, rng)
        layouts.add(scene.layout)
        boxes = [box_of(one, size) for one in scene.placed]
        for top, left, side in boxes:
            assert 0 <= top <= size[0] - side, scene
            assert 0 <= left <= size[1] - side, scene
        if scene.layout in ("row", "column", "grid", "corners"):
            for i, (top, left, side) in enumerate(boxes):
                for other_top, other_left, other in boxes[:i]:
                    down = min(top + side, other_top + other) - max(top, other_top)
                    right = min(left + side, other_left + other) - max(left, other_left)
                    assert min(down, right) <= 0.2 * side, scene
        assert len({one.emoji for one in scene.placed}) == len(scene.placed)
    assert layouts == set(LAYOUTS)


def test_pairs_kept_out_never_meet_and_are_found_when_asked_for() -> None:
    known = many(60)
    weights = np.full(60, 1 / 60)
    rng = np.random.default_rng(0)
    shown = [draw_scene(known, weights, rng) for _ in range(1500)]
    met = [
        held_out_pair(known[a.emoji], known[b.emoji])
        for scene in shown
        for i, a in enumerate(scene.placed)
        for b in scene.placed[:i]
    ]
    assert len(met) > 2000
    assert not any(met)
    pairs = [(a, b) for i, a in enumerate(known) for b in known[:i]]
    share = np.mean([held_out_pair(a, b) for a, b in pairs])
    assert 0.03 < share < 0.07
    assert held_out_pair(*pairs[0]) == held_out_pair(*reversed(pairs[0]))
    for _ in range(20):
        first, second = draw_scene(known, weights, rng, held_out=True).placed
        assert held_out_pair(known[first.emoji], known[second.emoji])


def test_tones_kept_out_have_no_pictures() -> None:
    toned = many(300, tone=2)
    kept_out = [held_out_tone(one) for one in toned]
    assert 0.02 < np.mean(kept_out) < 0.09
    assert not any(held_out_tone(one) for one in many(300))
    scenes, ranges = single_scenes(toned, seed=1)
    shown = {scene.placed[0].emoji for scene in scenes}
    for index, (out, own) in enumerate(zip(kept_out, ranges, strict=True)):
        assert (index in shown) != out
        assert len(own) == (0 if out else 2)
        assert all(scenes[i].placed[0].emoji == index for i in own)


def test_paint_puts_each_emoji_where_the_caption_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emoji_data import pictures_of

    known = few_emoji(tmp_path, monkeypatch)
    by_label = {one.label: i for i, one in enumerate(known)}
    scene = thirds([by_label["red circle"], by_label["blue circle"]], Ground("plain", ("green",)))
    painted = paint(scene, pictures_of(known, 64), (96, 144), np.random.default_rng(0))
    assert painted.shape == (3, 96, 144)
    middles = [painted[:, 48, x] for x in (24, 72, 120)]
    expected = [COLOURS[name] for name in ("red", "green", "blue")]
    assert np.allclose([(m + 1) * 127.5 for m in middles], expected, atol=2)


def test_no_scene_to_draw_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji_scenes

    monkeypatch.setattr(emoji_scenes, "HELD_OUT_OF_100", 100)
    monkeypatch.setattr(emoji_scenes, "TRIES", 20)
    with pytest.raises(InvalidInput, match="emoji"):
        draw_scene(
            many(3),
            np.full(3, 1 / 3),
            np.random.default_rng(0),
            layouts={"beside": (1.0, 2, 2)},
        )


def test_single_scenes_start_on_white() -> None:
    scenes, ranges = single_scenes(many(5), seed=3)
    assert all(scenes[own[0]].ground == WHITE for own in ranges)
    assert all(scenes[i].ground != WHITE for own in ranges for i in own[1:])
    assert Image.new("RGBA", (8, 8)).size == box_of(scenes[0].placed[0], (8, 8))[2:] * 2

"""Captions for the emoji recipes: names, places and grounds, said in many ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emoji_data import Emoji
from emoji_grounds import WHITE, draw_ground, with_article
from emoji_scenes import Placed, Scene, draw_scene

__all__ = ["corpus", "describe", "describe_plainly"]


def describe(scene: Scene, emoji: Sequence[Emoji], rng: np.random.Generator) -> str:
    """One way to ask for this scene; a ground that is not white is always named, white now and
    then.
    """
    if scene.layout == "single":
        text = _alone(emoji[scene.placed[0].emoji], rng)
    else:
        named = [with_article(_name(emoji[one.emoji], rng)) for one in scene.placed]
        text = _together(scene, named, rng)
    if scene.ground != WHITE or rng.random() < 0.08:
        phrases = scene.ground.phrases()
        phrase = phrases[0] if rng.random() < 0.7 else phrases[rng.integers(len(phrases))]
        joint = ("{} on {}", "{}, {}", "{} in front of {}")[rng.choice(3, p=(0.8, 0.1, 0.1))]
        text = joint.format(text, phrase)
    return text


def describe_plainly(scene: Scene, emoji: Sequence[Emoji]) -> str:
    """The first way to say it: labels, places in order, the ground unless it is white."""
    if scene.layout == "single":
        text = emoji[scene.placed[0].emoji].label.lower()
    else:
        named = [with_article(emoji[one.emoji].label.lower()) for one in scene.placed]
        places = [one.slot.place for one in scene.placed]
        text = _listed([f"{one} {place}" for one, place in zip(named, places, strict=True)])
    return text if scene.ground == WHITE else f"{text} on {scene.ground.phrases()[0]}"


def corpus(emoji: Sequence[Emoji], *, seed: int, repeats: int = 12) -> list[str]:
    """Captions to train the tokenizer on."""
    rng = np.random.default_rng(seed)
    texts = []
    for one in emoji:
        for _ in range(1 if one.tone else repeats):
            ground = WHITE if rng.random() < 0.7 else draw_ground(rng)
            texts.append(f"{_alone(one, rng)} on {ground.phrases()[0]}")
    weights = np.full(len(emoji), 1 / len(emoji))
    return texts + [
        describe(draw_scene(emoji, weights, rng), emoji, rng) for _ in range(2 * len(emoji))
    ]


def _together(scene: Scene, named: Sequence[str], rng: np.random.Generator) -> str:
    """Several emoji, or one at a stated place."""
    if scene.layout in ("beside", "above") and rng.random() < 0.65:
        return _related(scene.layout, *named, rng)
    order = [*range(len(named))] if rng.random() < 0.6 else rng.permutation(len(named))
    parts = [_at(scene, i, named[i], rng) for i in order]
    return _listed(parts) if rng.random() < 0.85 else ", ".join(parts)


def _related(layout: str, first: str, second: str, rng: np.random.Generator) -> str:
    if layout == "beside":
        ways = ("{0} left of {1}", "{1} right of {0}", "{0} to the left of {1}",
                "{1} to the right of {0}", "{0} next to {1}", "{0} and {1}")  # fmt: skip
    else:
        ways = ("{0} above {1}", "{1} below {0}", "{0} over {1}", "{1} under {0}",
                "{0} on top of {1}", "{1} beneath {0}")  # fmt: skip
    shares = (0.3, 0.2, 0.15, 0.15, 0.1, 0.1)
    return ways[rng.choice(len(ways), p=shares)].format(first, second)


def _at(scene: Scene, index: int, name: str, rng: np.random.Generator) -> str:
    """An emoji with its place, and often its size where sizes differ."""
    one: Placed = scene.placed[index]
    place = one.slot.place
    if rng.random() < 0.3 and (" left" in place or " right" in place) and place.count(" ") == 3:
        place += " corner" if "middle" not in place else ""
    if scene.layout == "focus" and rng.random() < 0.8:
        article, _, noun = name.partition(" ")
        word = (
            ("large", "big")[rng.integers(2)]
            if index == 0
            else ("small", "little")[rng.integers(2)]
        )
        name = f"{'a' if article in ('a', 'an') else article} {word} {noun}"
    return f"{name} {place}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _name(emoji: Emoji, rng: np.random.Generator) -> str:
    """The label, or one of the other names that people use."""
    if emoji.names and rng.random() < 0.35:
        return emoji.names[rng.integers(len(emoji.names))]
    return emoji.label.lower()


def _alone(emoji: Emoji, rng: np.random.Generator) -> str:
    label = _name(emoji, rng)
    kind, _, rest = label.partition(": ")
    if rest and rng.random() < 0.5:
        label = f"{kind} of {rest}" if kind == "flag" else f"{kind}, {rest}"
    tags = [tag.lower() for tag in emoji.tags if tag.lower() not in label]
    tags = [tags[i] for i in rng.permutation(len(tags))[: rng.integers(1, 5)]]
    named = with_article(label) if rng.random() < 0.5 else label
    match rng.choice(8, p=(0.34, 0.32, 0.08, 0.04, 0.04, 0.1, 0.05, 0.03)):
        case 0:
            return label
        case 1:
            return with_article(label)
        case 2:
            return f"{named} emoji"
        case 3:
            return f"an emoji of {named}"
        case 4:
            return f"3d {label}"
        case 5:
            return ", ".join([named, *tags])
        case 6:
            return " ".join([*tags[:2], label])
        case _:
            # Tags alone are vague, so they stay rare, and a sample without tags keeps its label.
            return ", ".join(tags) if len(tags) >= 2 else label

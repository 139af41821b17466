"""The wordings of the questions, three sets that share words but no sentence.

`{a}` stands for the attribute's name, `{o}` for first or last, `{e}` for the start or the end, `{x}` and `{y}` for
things, `{list}` for four of them. A third of the sentences is held out: new combinations of words that the training
sentences contain.
"""

from __future__ import annotations

ATTRIBUTES = {
    "colour": ("colour", "color"),
    "number": ("number", "digit"),
    "shape": ("shape",),
    "icon": ("icon", "symbol"),
    "code": ("code",),
}

ORDER = {
    "train": (
        "Which {a} is shown {o}?",
        "What {a} comes {o}?",
        "What is the {o} {a}?",
        "Name the {o} {a} in the video.",
        "Tell me the {o} {a} you see.",
        "Which {a} do you see {o}?",
        "The {o} {a} in the clip is?",
        "What {a} appears {o} in this video?",
        "The {o} {a}?",
        "Please say which {a} was {o}.",
        "Can you name the {a} that is shown {o}?",
        "Which {a} is at the {e} of the video?",
        "What {a} do you see at the {e}?",
    ),
    "dev": (
        "Which is the {o} {a} shown in this clip?",
        "Please tell me what {a} you see {o}.",
        "Name the {a} that comes {o} in the clip.",
    ),
    "test": (
        "What {a} is shown {o} in the video?",
        "Can you tell me the {o} {a} in this clip?",
        "Please name the {a} that appears {o}.",
    ),
}

COLOUR_OF_THING = {
    "train": (
        "What {a} is the {o} thing?",
        "What {a} does the {o} thing have?",
        "Tell me the {a} of the {o} thing.",
        "The thing shown {o} has which {a}?",
    ),
    "dev": ("The {o} thing has which {a}?",),
    "test": ("Which {a} is the {o} thing in the video?",),
}

COUNT = {
    "train": (
        "How many things are shown?",
        "How many things are there?",
        "How many things do you see?",
        "Count the things.",
        "What is the count of things in the video?",
        "Please tell me how many things appear.",
        "Please count the things in this clip.",
        "How many things come up in the clip?",
        "Can you say the count of the things?",
    ),
    "dev": ("Please say how many things you see.", "How many things appear in the video?"),
    "test": (
        "Can you count the things shown in this video?",
        "How many things are shown in the clip?",
        "Tell me how many things there are.",
    ),
}

MOTION = {
    "train": (
        "Which way does the marker move?",
        "Where does the marker go?",
        "In which direction does the marker move?",
        "What is the direction of the marker?",
        "What way does the dot move?",
        "Tell me the direction of the dot in the video.",
        "Which way is the marker going?",
        "The marker moves which way?",
        "Can you say where the dot is going?",
        "Please name the direction in which the marker moves.",
    ),
    "dev": ("Please say which way the dot is going.", "What is the direction in which the marker moves?"),
    "test": (
        "In which direction is the marker going?",
        "Which way does the dot move in this video?",
        "Can you tell me where the marker moves?",
    ),
}

NAMED: dict[str, dict[str, tuple[str, ...]]] = {
    "now": {
        "train": (
            "What is on the screen now?",
            "What do you see right now?",
            "Which thing is shown at this moment?",
            "What is shown now?",
            "Name the thing on the screen at this moment.",
            "What is in the picture right now?",
        ),
        "dev": ("Which thing is on the screen right now?",),
        "test": (
            "What do you see at this moment?",
            "Name the thing that is shown now.",
            "Tell me which thing you see now.",
        ),
    },
    "shown": {
        "train": (
            "Is a {x} shown?",
            "Is there a {x} in the video?",
            "Do you see a {x}?",
            "Does a {x} appear?",
            "Was there a {x} in the clip?",
            "Can you see a {x} in this video?",
        ),
        "dev": ("Does a {x} appear in the video?",),
        "test": ("Is a {x} shown in this clip?", "Do you see a {x} in the video?", "Can you see a {x} in the clip?"),
    },
    "which": {
        "train": (
            "Which of these is shown: {list}?",
            "Which one of these do you see: {list}?",
            "Which of these comes up in the clip: {list}?",
            "Name the one of these that is shown: {list}.",
            "Which of these can you see: {list}?",
            "Only one of these appears in the video, which one: {list}?",
        ),
        "dev": ("Which one of these appears in the clip: {list}?",),
        "test": (
            "Which of these do you see in the video: {list}?",
            "Name the one of these that appears: {list}.",
            "Which one of these can you see in this video: {list}?",
        ),
    },
    "absent": {
        "train": (
            "Which of these is not shown: {list}?",
            "Which one of these do you not see: {list}?",
            "Which of these does not come up in the clip: {list}?",
            "Name the one of these that is not shown: {list}.",
            "Which of these can you not see: {list}?",
            "Only one of these does not appear in the video, which one: {list}?",
        ),
        "dev": ("Which one of these does not appear in the clip: {list}?",),
        "test": (
            "Which of these do you not see in the video: {list}?",
            "Name the one of these that does not appear: {list}.",
            "Which one of these can you not see in this video: {list}?",
        ),
    },
    "before": {
        "train": (
            "What is shown right before the {x}?",
            "What comes just before the {x}?",
            "Which thing do you see before the {x}?",
            "Name the thing that comes right before the {x}.",
            "What was there before the {x} appears?",
            "Tell me what is shown before the {x}.",
        ),
        "dev": ("Which thing comes right before the {x}?",),
        "test": (
            "What do you see just before the {x}?",
            "Name the thing that is shown before the {x}.",
            "Tell me what comes right before the {x}.",
        ),
    },
    "after": {
        "train": (
            "What is shown right after the {x}?",
            "What comes just after the {x}?",
            "Which thing do you see after the {x}?",
            "Name the thing that comes right after the {x}.",
            "What was there after the {x} appears?",
            "Tell me what is shown after the {x}.",
        ),
        "dev": ("Which thing comes right after the {x}?",),
        "test": (
            "What do you see just after the {x}?",
            "Name the thing that is shown after the {x}.",
            "Tell me what comes right after the {x}.",
        ),
    },
    "where": {
        "train": (
            "Where is the {x}?",
            "In which corner is the {x} shown?",
            "Which part of the picture shows the {x}?",
            "Where do you see the {x}?",
            "Where does the {x} appear?",
            "In which part of the screen is the {x}?",
        ),
        "dev": ("In which corner do you see the {x}?",),
        "test": (
            "Where is the {x} shown?",
            "Which part of the screen shows the {x}?",
            "In which part of the picture do you see the {x}?",
        ),
    },
    "colour_of": {
        "train": (
            "What colour is the {x}?",
            "Which color does the {x} have?",
            "Tell me the colour of the {x}.",
            "The {x} has which color?",
            "What is the color of the {x}?",
            "Name the colour of the {x} in the video.",
        ),
        "dev": ("Which colour is the {x} in the clip?",),
        "test": (
            "What is the colour of the {x} in this clip?",
            "Which color is the {x}?",
            "Tell me which colour the {x} has.",
        ),
    },
    "order": {
        "train": (
            "Which of these is shown {o}: {list}?",
            "Which of these comes {o}: {list}?",
            "Which one of these do you see {o}: {list}?",
            "Name the one of these that appears {o}: {list}.",
            "Which one is {o}: {list}?",
            "What comes {o} in the video: {list}?",
        ),
        "dev": ("Which one of these comes {o} in the clip: {list}?",),
        "test": (
            "Which of these do you see {o} in the video: {list}?",
            "Name the one that is shown {o}: {list}.",
            "Which one of these appears {o} in the clip: {list}?",
        ),
    },
    "relation": {
        "train": (
            "Where is the {x}, seen from the {y}?",
            "Is the {x} left or right of the {y}, above or below?",
            "On which side of the {y} is the {x}?",
            "The {x} is on which side of the {y}?",
            "Which way is it from the {y} to the {x}?",
            "Where is the {x} shown, left or right of the {y}, above or below?",
        ),
        "dev": ("Where do you see the {x}, seen from the {y}?",),
        "test": (
            "On which side of the {y} do you see the {x}?",
            "Is the {x} above or below the {y}, left or right?",
            "Where is the {x} shown, seen from the {y}?",
        ),
    },
}

STEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "train": (
            "What colour is the thing that is shown right {s} the {x}?",
            "Which color does the thing {s} the {x} have?",
            "Tell me the colour of the thing that comes just {s} the {x}.",
            "The thing that comes right {s} the {x} has which colour?",
            "What is the color of the thing {s} the {x}?",
            "Name the colour of what is shown just {s} the {x}.",
        ),
        "dev": ("Which colour has the thing that is shown just {s} the {x}?",),
        "test": (
            "What is the colour of the thing that comes right {s} the {x}?",
            "Which color is the thing that you see {s} the {x}?",
            "Tell me which colour the thing {s} the {x} has.",
        ),
    },
    "where": {
        "train": (
            "Where is the thing that is shown right {s} the {x}?",
            "In which corner is the thing {s} the {x}?",
            "Which part of the picture shows the thing that comes just {s} the {x}?",
            "Where do you see the thing that comes right {s} the {x}?",
            "Where is the thing {s} the {x} shown?",
            "In which part of the screen is what is shown just {s} the {x}?",
        ),
        "dev": ("In which corner do you see the thing that comes {s} the {x}?",),
        "test": (
            "Where do you see the thing {s} the {x}?",
            "Which part of the screen shows the thing that is shown right {s} the {x}?",
            "In which corner is the thing that comes just {s} the {x}?",
        ),
    },
}
"""What is asked about the neighbour, before or after (`{s}`), of a thing that is named."""
AS = {
    "where_twin": "where",
    "before_twin": "before",
    "after_twin": "after",
    "which_twin": "which",
    "absent_twin": "absent",
    "code_which": "which",
    "code_colour": "colour_of",
}
"""Kinds of the third set that are asked in the sentences of another kind."""

ENDS = {"first": ("start", "beginning"), "last": ("end",)}


def phrasings(kind: str, split: str) -> tuple[str, ...]:
    """All sentences that ask for `kind` in `split`; those of lookups still hold `{x}`, `{y}`, `{o}` and `{list}`.

    Parameters
    ----------
    kind : str
        One of `quiz.KINDS` or of `puzzles.PUZZLES`, e.g. `"colour_first"`.
    split : str
        `"train"`, `"dev"` or `"test"`.
    """
    if kind == "count":
        return COUNT[split]
    if kind == "motion":
        return MOTION[split]
    if kind in NAMED:
        return NAMED[kind][split]
    if kind in AS:
        return NAMED[AS[kind]][split]
    attribute, order = kind.split("_")
    if order in ("before", "after"):
        return tuple(sentence.replace("{s}", order) for sentence in STEPS[attribute][split])
    templates = ORDER[split] + (COLOUR_OF_THING[split] if attribute == "colour" else ())
    return tuple(
        template.format(a=name, o=order, e=end)
        for template in templates
        for name in ATTRIBUTES[attribute]
        for end in (ENDS[order] if "{e}" in template else ("",))
    )

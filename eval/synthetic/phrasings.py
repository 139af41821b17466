"""The wordings of the questions, three sets that share words but no sentence.

`{a}` stands for the attribute's name, `{o}` for first or last, `{e}` for the start or the end. A held-out sentence is a
new combination of words that the training sentences contain.
"""

from __future__ import annotations

ATTRIBUTES = {"colour": ("colour", "color"), "number": ("number", "digit"), "shape": ("shape",)}

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
        "Say the {a} that comes {o} in the clip.",
        "Which {a} is at the {e} of the video?",
        "What {a} do you see at the {e}?",
    ),
    "dev": ("Which is the {o} {a} shown in this clip?", "Please tell me what {a} you see {o}."),
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
        "Tell me how many things appear.",
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

ENDS = {"first": ("start", "beginning"), "last": ("end",)}


def phrasings(kind: str, split: str) -> tuple[str, ...]:
    """All sentences that ask for `kind` in `split`.

    Parameters
    ----------
    kind : str
        One of `world.KINDS`, e.g. `"colour_first"`.
    split : str
        `"train"`, `"dev"` or `"test"`.
    """
    if kind == "count":
        return COUNT[split]
    if kind == "motion":
        return MOTION[split]
    attribute, order = kind.split("_")
    templates = ORDER[split] + (COLOUR_OF_THING[split] if attribute == "colour" else ())
    return tuple(
        template.format(a=name, o=order, e=end)
        for template in templates
        for name in ATTRIBUTES[attribute]
        for end in (ENDS[order] if "{e}" in template else ("",))
    )

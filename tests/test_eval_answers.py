"""Answers as models give them: a table of what each means, counts and Yes or No, and text that nobody would write."""

from __future__ import annotations

import doctest
import random
from pathlib import Path

import pytest

from eval.tasks import letters, said, words
from eval.tasks.letters import letter
from eval.tasks.words import count_in, yes_or_no

TABLE = Path(__file__).with_name("answers.txt")


def table() -> list[tuple[tuple[str, ...], str, str | None]]:
    """The options, the answer and its letter of each row."""
    rows: list[tuple[tuple[str, ...], str, str | None]] = []
    options: tuple[str, ...] = ()
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            options = tuple(line[2:].split(" | "))
        elif line and not line.startswith("#"):
            rows.append((options, line[3:].replace("\\n", "\n"), None if line[0] == "-" else line[0]))
    return rows


@pytest.mark.parametrize("options", list(dict.fromkeys(row[0] for row in table())), ids=" | ".join)
def test_answers_mean_what_a_careful_reader_takes_them_for(options: tuple[str, ...]) -> None:
    asked = [(answer, right) for of, answer, right in table() if of == options]
    lettered = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]
    read = [(answer, letter(answer, options)) for answer, _ in asked]
    assert read == asked
    assert [(answer, letter(answer, lettered)) for answer, _ in asked] == asked  # as most benchmarks write options


def test_the_table_is_a_large_one_of_different_answers() -> None:
    rows = table()
    assert len({row[:2] for row in rows}) == len(rows) >= 500
    assert sum(right is None for *_, right in rows) >= 150


@pytest.mark.parametrize(
    ("response", "count", "said_yes"),
    [
        ("2", "2", None),
        ("2.", "2", None),
        ("They clap two times.", "2", None),
        ("He does it twice.", "2", None),
        (r"$\boxed{4}$", "4", None),
        ("Step 1: look. Step 2: count. Answer: 4", "4", None),
        ("**12**", "12", None),
        ("007", "7", None),
        ("9" * 5000, "9" * 5000, None),
        ("1 or 2", None, None),
        ("The answer is 1 or 2", None, None),
        ("2-3", None, None),
        ("1.5", None, None),
        ("3:20", None, None),
        ("-3", None, None),
        ("not 3", None, None),
        ("at least 3", None, None),
        ("more than 3", None, None),
        ("No one claps.", None, None),
        ("The one on the left claps.", None, None),
        ("many", None, None),
        ("yes", None, "Yes"),
        ("Y", None, "Yes"),
        ("n", None, "No"),
        ("Yes, he does.", None, "Yes"),
        ("No, he is not pouring tea.", None, "No"),
        ("Yes he is.", None, "Yes"),
        ("The answer is no.", None, "No"),
        (r"\boxed{Yes}", None, "Yes"),
        ("<think>Yes?</think>No", None, "No"),
        ("Yes or no?", None, None),
        ("Yes and no.", None, None),
        ("No. Yes.", None, None),
        ("Not yes.", None, None),
        ("I wouldn't say yes.", None, None),
        ("No person is there.", None, None),
        ("Now I see it", None, None),
        ("", None, None),
    ],
)
def test_counts_and_yes_or_no(response: str, count: str | None, said_yes: str | None) -> None:
    assert (count_in(response), yes_or_no(response)) == (count, said_yes)


PIECES = [
    *"ABCDEFIabcz \n\t.,:;?!()[]{}<>\"'*_`$\\/-–—=&|0123456789¹²٣Ⓒ（）。、：Ｃ是不或选é",
    *"\u0130\ufeff\u200b\ud800\udfff\ue000\ue100\ue400\ue401\0",
    *(" not ", " or ", " and ", " is ", " the answer is ", "Answer: ", "option ", " wrong", " correct", " because "),
    *("wait, ", "unlike ", "if ", " so ", "\\boxed{", "\\text{", "<think>", "</think>", "<answer>", '{"answer": '),
    *("```json\n", "A. ", "(B)", "a red car", "Vitamin C", "yes", "no", "3", "答案是", "A man", "\nUser: "),
    *("[" * 40, "9" * 40, '{"a":' * 30),
]


def test_any_text_is_read_or_not_and_never_fails_or_leaves_the_options() -> None:
    draw = random.Random(14)

    def text(longest: int) -> str:
        return "".join(draw.choice(PIECES) for _ in range(draw.randrange(longest)))

    read = 0
    for _ in range(800):
        options = [text(5) for _ in range(draw.choice((1, 2, 4, 4, 4, 4, 4, 4, 5, 7, 30)))]
        response = text(30)
        found = letter(response, options)
        assert found is None or found in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)], (response, options)
        assert yes_or_no(response) in (None, "Yes", "No")
        counted = count_in(response)
        assert counted is None or (counted.isascii() and counted.isdigit())
        read += found is not None
    assert 50 < read < 750  # neither everything nor nothing


def test_a_long_text_is_read_in_no_time() -> None:
    options = ["A red car", "A bus", "A man", "A bicycle"]
    assert letter("A red car or a bus, not B. " * 1000 + "The answer is C.", options) == "C"
    assert letter("A, B, " * 2500, options) is None
    assert letter("The answer is A. " * 1000 + "The answer is B.", options) is None


def test_examples() -> None:
    assert all(doctest.testmod(module).failed == 0 for module in (letters, said, words))

"""Reading what a model said: odd answers, and the official scorer's reading of the same."""

from __future__ import annotations

import doctest

import pytest

from eval.tasks import letters
from eval.tasks.letters import letter
from eval.tasks.videomme import official_letter

OPTIONS = ["A. A red car", "B. A bus", "C. A man", "D. A bicycle"]


@pytest.mark.parametrize(
    ("response", "strict", "official"),
    [
        ("C", "C", "C"),
        ("c", "C", None),
        ("C.", "C", "C"),
        ("(c)", "C", None),
        ("C. A man", "C", "C"),
        ("C\nBecause it is no bus", "C", "C"),
        ("Best answer: C", "C", "B"),
        ("The best answer is: C", "C", "C"),
        ("Answer: c", "C", None),
        ("**C**", "C", "C"),
        (r"\boxed{C}", "C", "C"),
        ("A man is walking past, C", "C", "A"),
        ("A man", "C", "A"),
        ("the answer is a man", "C", None),
        ("I think it is the man, so option C.", "C", "C"),
        ("It is not A but C", "C", "A"),
        ("The correct option is (C).", "C", "C"),
        ("A is correct", "A", "A"),
        ("The answer is a", "A", None),
        ("A. A red car, because B is not shown", "A", "A"),
        ("a bus", "B", None),
        ("I can see a bus", "B", None),
        ("Answer A seems wrong at first, but the final answer is C.", "C", "A"),
        ("", None, None),
        ("I can't see the video.", None, None),
        ("As an AI model, I cannot watch videos.", None, "A"),
        ("Both A and C", None, "B"),
        ("A or C", None, "A"),
        ("The answer is not A", None, "A"),
        ("It is not a bus", None, None),
        ("A person is walking", None, "A"),
        ("a bus, then a bicycle", None, None),
        ("E", None, None),
        ("None of the above", None, None),
        ("<think>A seems right. But no.</think>\n\nC", "C", "A"),
        ("It may be A or B.</think>C", "C", "A"),
        ("<think>The answer is A, or", None, "A"),
        ("答案是C。", "C", "C"),
        ("（C）一个男人", "C", "C"),
        ("\uff23", "C", None),  # a letter of full width
        ("Option A is incorrect. Option C is correct.", "C", "A"),
        ("A is not shown, so it must be C", "C", "A"),
        ("Option C is wrong", None, "C"),
        ("A man ... C", "C", "A"),
        ("'C'", "C", "C"),
        ("The answer is 'c'.", "C", None),
        ("It's C", "C", "C"),
        ("N/A", None, "A"),
        ("I'm sorry, but I can't help with that.", None, None),
        ("(A) (C)", None, "A"),
        ("A. B. C. D.", None, "A"),
        ("(A) or (C)", None, "A"),
        ("C)\nA man", "C", "C"),
        ("C. A man\nD. A bicycle", "C", "C"),
        ("A: A red car is not there. B: A bus. The answer: C", "C", "A"),
        ("A. A red car is wrong. B. A bus is wrong. So the answer is C.", "C", "A"),
        ("C. Answer A is tempting", "C", "C"),
        ("C. The answer is a man", "C", "C"),
        ("C, because A is wrong and B is, too", "C", "C"),
        ("I think it is D because A is wrong", "D", "D"),
        ("C, shown on D-Day", "C", "C"),
        ("(B) Blue", "B", "B"),
    ],
)
def test_odd_answers(response: str, strict: str | None, official: str | None) -> None:
    assert letter(response, OPTIONS) == strict
    assert official_letter(response) == official


def test_more_options_have_more_letters() -> None:
    assert letter("E", [*OPTIONS, "E. A plane"]) == "E"
    assert letter("The answer is F", [*OPTIONS, "E. A plane"]) is None


def test_an_option_within_another() -> None:
    assert letter("They are red cars indeed", ["cars", "red cars", "a bus", "nobody"]) == "B"


def test_examples() -> None:
    assert doctest.testmod(letters) == (0, 4)

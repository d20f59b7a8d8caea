"""The exception tree, and the words at the end of a message."""

from __future__ import annotations

import pytest

from trainer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    SaveError,
    TrainerError,
    WorkerError,
    closest,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *[(TrainerError, 1), (WorkerError, 1), (ConfigError, 2), (DataError, 2)],
        *[(DivergedError, 4), (CheckpointError, 5), (SaveError, 6)],
    ],
)
def test_each_error_ends_the_program_with_its_own_exit_code(kind: type[TrainerError], code: int) -> None:
    assert issubclass(kind, TrainerError)
    assert kind("why").exit_code == code
    assert str(kind("why")) == "why"


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_many_mistakes_are_one_error_that_tells_each_on_a_line(kind: type[ConfigError]) -> None:
    error = kind(["a: wrong", "b: wrong too"])
    assert error.problems == ["a: wrong", "b: wrong too"]
    assert str(error) == "a: wrong\nb: wrong too"
    assert kind("alone").problems == ["alone"]


def test_the_closest_word_is_found_whatever_its_case_and_given_as_it_is_written() -> None:
    assert closest("ADAMM", ["sgd", "Adam", "rmsprop"]) == "Adam"
    assert closest("xyz", ["sgd", "adam"]) is None
    assert closest("a", []) is None


def test_of_two_words_that_differ_in_case_alone_the_first_is_meant() -> None:
    assert closest("adam", ["Adam", "ADAM"]) == "Adam"


def test_a_message_ends_with_the_word_that_was_meant_or_with_what_is_allowed() -> None:
    assert did_you_mean("optimiser", ["optimizer", "scheduler"]) == "did you mean optimizer?"
    assert did_you_mean("zzz", ["one", "two"]) == "known: one, two"
    assert did_you_mean("zzz", [f"word{n}" for n in range(20)], most=2) == "known: word0, word1, ..."
    assert did_you_mean("zzz", []) == "nothing is known here"

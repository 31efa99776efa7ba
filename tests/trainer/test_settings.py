from __future__ import annotations

import math
from typing import Any

import pytest

from algorithm.errors import InputError
from trainer.settings import TrainSettings, learning_rate, merged, read_assignments


def test_the_defaults_are_the_papers() -> None:
    settings = TrainSettings()
    assert (settings.learning_rate, settings.decay, settings.batch_size) == (0.001, 0.985, 2)
    assert (settings.loss, settings.class_weights, settings.epochs) == ("weighted_ce", (1, 10, 50), 22)
    assert (settings.activation, settings.dropout, settings.base_filters) == ("leaky_relu", 0.6, 8)


def test_settings_survive_a_round_trip() -> None:
    settings = TrainSettings.read(
        {"class_weights": [1, 2], "gradient_norm": 12, "augment": {"noise_share": 1}}, "here"
    )
    assert settings.class_weights == (1.0, 2.0)
    assert TrainSettings.read(settings.as_dict(), "there") == settings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"droput": 0.1}, "my.toml: unknown setting 'droput'; did you mean 'dropout'\\?"),
        ({"zzz": 1}, "unknown setting 'zzz'; known settings are accumulate, activation, augment"),
        ({"epochs": 1.5}, "'epochs' must be a whole number, got 1.5"),
        ({"epochs": True}, "'epochs' must be a whole number, got true"),
        ({"seed": -1}, "'seed' must be from 0"),
        ({"learning_rate": float("inf")}, r"'learning_rate' must be in \(0, 1\]"),
        ({"learning_rate": float("nan")}, r"'learning_rate' must be in \(0, 1\]"),
        ({"epochs": 0}, "'epochs' must be from 1 to"),
        ({"dropout": 1}, r"'dropout' must be in \[0, 1\), got 1.0"),
        (
            {"class_weights": "even"},
            '\'class_weights\' must be a list of numbers or "equal" or "inverse", got "even"',
        ),
        ({"class_weights": [0, 0]}, "non-negative, finite and not all zero"),
        ({"overlap_zyx": [0.5, 0.5]}, "'overlap_zyx' must be a list of 3 numbers"),
        ({"gradient_norm": "big"}, "'gradient_norm' must be a number or null"),
        ({"loss": "mse"}, '\'loss\' must be "weighted_ce" or "topk_ce" or "dice_ce" or "dice_topk"'),
        ({"top_k_share": 0}, r"'top_k_share' must be in \(0, 1\], got 0"),
        ({"ema": 1.0}, r"'ema' must be in \(0, 1\) or null, got 1"),
        ({"accumulate": 0}, "'accumulate' must be from 1 to 4096, got 0"),
        ({"augment": 3}, "'augment' must be a table, got 3"),
        (
            {"augment": {"nois_share": 1}},
            r"setting 'augment.nois_share'; did you mean 'augment.noise_share'\?",
        ),
        ({"augment": {"noise_share": "often"}}, "'augment.noise_share' must be a number, got \"often\""),
        ({"augment": {"scale": [2, 1]}}, r"'augment.scale' must be LOW <= HIGH.*, got \[2.0, 1.0\]"),
    ],
)
def test_wrong_settings_are_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainSettings.read(table, "my.toml")


def test_assignments_are_json_or_bare_words() -> None:
    words = ["epochs=3", "loss=dice_ce", "class_weights=[1,2]", "gradient_norm=null"]
    assert read_assignments(["augment.noise_share=0.5", "augment.scale=[1,2]", "seed=1"]) == {
        "augment": {"noise_share": 0.5, "scale": [1, 2]},
        "seed": 1,
    }
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "d": 6}) == {"a": {"b": 5, "c": 2}, "d": 6}
    assert read_assignments(words) == {
        "epochs": 3,
        "loss": "dice_ce",
        "class_weights": [1, 2],
        "gradient_norm": None,
    }
    with pytest.raises(InputError, match="--set takes NAME=VALUE, got 'epochs'"):
        read_assignments(["epochs"])


def test_the_exponential_schedule_multiplies_once_an_epoch() -> None:
    settings = TrainSettings()
    assert learning_rate(settings, 0, 7, 10) == 0.001
    assert learning_rate(settings, 1, 0, 10) == 0.001 * 0.985
    assert math.isclose(learning_rate(settings, 21, 9, 10), 0.001 * 0.985**21)


def test_the_polynomial_schedule_is_nnunets() -> None:
    settings = TrainSettings(schedule="polynomial", epochs=10, warm_up=0.0, learning_rate=0.01)
    rates = [learning_rate(settings, epoch, 0, 5) for epoch in range(10)]
    assert rates == pytest.approx([0.01 * (1 - epoch / 10) ** 0.9 for epoch in range(10)])


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
@pytest.mark.parametrize("warm_up", [0.001, 0.05, 0.17, 0.5])
def test_warming_up_never_overshoots(schedule: Any, warm_up: float) -> None:
    settings = TrainSettings(schedule=schedule, epochs=3, warm_up=warm_up, learning_rate=0.1)
    rates = [learning_rate(settings, epoch, step, 7) for epoch in range(3) for step in range(7)]
    assert max(rates) <= 0.1
    assert min(rates) > 0
    assert max(rates) > 0.09


def test_the_cosine_schedule_rises_and_falls_to_nothing() -> None:
    settings = TrainSettings(schedule="cosine", epochs=4, warm_up=0.25, learning_rate=2.0)
    rates = [learning_rate(settings, epoch, step, 10) for epoch in range(4) for step in range(10)]
    assert 0 < rates[0] < rates[1]
    assert max(rates) == pytest.approx(2.0)
    assert rates.index(max(rates)) == pytest.approx(10, abs=1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 <= rates[-1] < 0.02


def test_a_table_and_a_value_of_one_name_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"gives 'augment' a value and, in 'augment.noise_share=0.1', a setting"
    ):
        read_assignments(["augment=3", "augment.noise_share=0.1"])

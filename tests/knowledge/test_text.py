"""Names in texts."""

from __future__ import annotations

import pytest

from knowledge.text import mentions, names


@pytest.mark.parametrize(
    ("text", "name", "right"),
    [
        ("Rome", "Rome", True),
        ("It is in Rome. It has been there since.", "Rome", True),
        ("rome, of course", "Rome", True),
        ("Łódź été", "Łódź", True),
        ("The Louvre", "the Louvre", True),
        ("Anna Akhmatova", "Anna", False),
        ("Jane Doe Jane Doe Janee", "Jane Doe", False),
        ("Bergenevo", "Bergen", False),
        ("Paris", "Rome", False),
    ],
)
def test_a_name_is_said_and_not_only_begun(text: str, name: str, right: bool) -> None:
    assert names(text, name) == right
    assert mentions(text, name) or not right

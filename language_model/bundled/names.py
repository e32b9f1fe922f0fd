"""Names that nobody has heard of, in every shape that a user may type.

In-context editing has to copy names that training never saw. A model that trains on names of one kind copies only
that kind (our prototype: 0 % on others), so the generator mixes real first and last names, invented words, titles of
several words, acronyms, codes, numbers, dates, other alphabets' letters and arbitrary strings.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from functools import cache

from knowledge.world import load_world

_FIRST = (
    "Ada Adam Aisha Akira Alan Alice Amara Amir Ana Andrei Anita Anton Arjun Astrid Aurora Beatriz Ben Boris Bruno Camila Carlos Carmen Chen "
    "Chloe Clara Daniel Daria David Diego Dmitri Edith Elena Eli Elif Emeka Emil Emma Enzo Erik Esther Eva Farah Fatima Felix Fiona Freya "
    "Gabriel George Giulia Grace Greta Hana Hannah Hassan Hector Helen Hugo Ibrahim Igor Ines Ingrid Irene Isaac Ivan Jack Jamal James Jane "
    "Jonas Jose Julia Kai Karim Kate Kofi Lars Layla Lena Leo Liam Lina Linh Lucas Lucy Luis Maja Malik Marco Maria Mark Mateo Maya Mei Mia "
    "Miguel Mila Mohamed Nadia Naomi Nia Nikolai Nina Noah Nora Olga Oliver Omar Oscar Otto Paul Pedro Petra Priya Rafael Rahul Rosa Ruth "
    "Sam Sara Sasha Selma Sergei Simon Sofia Stella Sven Tara Theo Thomas Tomas Uma Vera Victor Viktor Wei Xavier Yara Yuki Yusuf Zara Zoe"
).split()
_LAST = (
    "Abbott Adeyemi Ahmed Almeida Andersen Aoki Baker Banerjee Barros Bauer Becker Berg Bianchi Blake Bose Brandt Campos Castillo Chandra Chen "
    "Clarke Cohen Costa Cruz Dahl Das Delgado Diallo Diaz Dubois Dupont Eriksen Esposito Farouk Fernandez Ferrari Fischer Fletcher Fofana Fox "
    "Garcia Ghosh Gomez Gray Green Gupta Haddad Hansen Hara Harris Hayashi Herrera Hoffman Holm Horvat Hughes Hussein Ito Ivanov Jansen Jensen "
    "Johansson Kaplan Kato Keller Khan Kim Klein Kovacs Kowalski Kruger Kumar Lang Larsen Lee Lehmann Levy Lindgren Liu Lopez Lund Mahmoud "
    "Mancini Marino Martin Mbeki Mehta Mendes Mensah Meyer Mills Molina Mori Moreau Mueller Murphy Nakamura Navarro Nguyen Nilsson Novak Okafor "
    "Olsen Ortiz Osei Owens Papadopoulos Park Patel Pereira Peters Petrov Popescu Quinn Ramos Rao Reid Reyes Rivera Rossi Roy Russo Saito Santos "
    "Sato Schmidt Schneider Sharma Silva Singh Sokolov Stone Suzuki Takeda Tanaka Torres Toure Tran Turner Vargas Vasquez Vogel Volkov Walker Wang "
    "Weber West Wilson Wolf Wong Wright Yamada Yilmaz Young Zhang Ziegler Zimmer"
).split()
_ADJECTIVES = (
    "Amber Ancient Bitter Black Blue Brave Bright Broken Calm Clear Cold Crimson Dark Deep Distant Early Electric Empty Endless Eternal Fading "
    "Fallen Final First Forgotten Frozen Gentle Glass Golden Grand Green Grey Hidden Hollow Iron Last Lesser Little Lost Lucky Midnight New "
    "Noble North Northern Old Open Pale Paper Perfect Proud Quiet Rapid Red Royal Sacred Secret Seventh Shining Silent Silver Simple Slow Small "
    "Solar Solid South Steady Stone Strange Sunny Sweet Swift Tall Third Twin United Upper Urban Velvet Warm West White Wild Winter Wooden Young"
).split()
_NOUNS = (
    "Anchor Apple Arrow Autumn Bay Beacon Bear Bell Bird Boat Book Bridge Brook Canyon Castle Cave Chapel Cliff Clock Cloud Coast Comet Copper "
    "Corner Court Crane Creek Crown Dawn Desert Door Dragon Dream Dust Eagle Earth Echo Ember Engine Feather Field Fire Flame Flower Forest "
    "Fortress Fountain Fox Gallery Garden Gate Ghost Hall Harbor Hawk Heart Hill Horizon Horse House Island Journey Key Lake Lantern Leaf Library "
    "Light Lion Machine Maple Market Meadow Mill Mirror Moon Mountain Museum Night Oak Ocean Orchard Owl Palace Path Pearl Pine Planet Pond "
    "Quarry Rain Raven Ridge River Road Rock Rose Sail Sand Scholar Sea Shadow Ship Signal Sky Snow Song Spring Square Star Station Stone Storm "
    "Story Stream Street Summer Sun Table Temple Theatre Thunder Tide Tower Train Tree Valley Village Voice Wall Wave Wheel Willow Wind Window Wing"
).split()
_ORGANISATIONS = (
    "Club Company Corporation Foundation Group Guild Institute Labs Limited Partners Press Society Studio Systems Union University Works Inc AG GmbH"
).split()
_PLACES = "Bay Beach Bridge Castle Church City Falls Gardens Hall Harbour Heights Hill Island Lake Palace Park Peak Plaza Point Square Tower Valley".split()
_ONSETS = "b br c ch cl cr d dr dw f fl fr g gl gr h j k kl kr l m n p ph pl pr qu r rh s sch sh sk sl sm sn sp st str sv t th tr ts tw v vl w wh x y z zh".split()
_VOWELS = "a a a e e e i i i o o o u u ae ai au ea ee ei eo ia ie io oa oe oo ou ua ue ui y é ö ü å ø ñe ã ı".split()
_CODAS = [
    "",
    "",
    "",
    "",
    *"b ck d ff g k l ll lt m mp n nd ng nk nn nt p r rd rk rn rt s sh sk ss st t th tt v x z".split(),
]
_MONTHS = "January February March April May June July August September October November December".split()
_UNITS = "km m kg tons miles euros dollars years hours litres degrees percent".split()
_COLOURS = "red blue green yellow purple orange black white teal violet scarlet turquoise beige indigo maroon".split()


def word(rng: random.Random) -> str:
    """A pronounceable word that does not exist."""
    syllables = rng.choice((1, 2, 2, 2, 3, 3, 4))
    text = "".join(
        (rng.choice(_ONSETS) if rng.random() < 0.9 or i else "")
        + rng.choice(_VOWELS)
        + (rng.choice(_CODAS) if rng.random() < 0.6 else "")
        for i in range(syllables)
    )
    return text.capitalize()


def arbitrary(rng: random.Random) -> str:
    """Letters and digits in no order at all: the hardest thing to copy."""
    kind = rng.random()
    length = rng.randint(2, 9)
    if kind < 0.3:
        return "".join(rng.choices(string.ascii_lowercase, k=length)).capitalize()
    if kind < 0.5:
        return "".join(rng.choices(string.ascii_letters, k=length))
    if kind < 0.65:
        return "".join(rng.choices(string.ascii_uppercase, k=rng.randint(2, 6)))
    if kind < 0.8:
        return "".join(rng.choices(string.ascii_uppercase + string.digits, k=length))
    if kind < 0.9:
        return f"{''.join(rng.choices(string.ascii_letters, k=rng.randint(1, 4)))}-{rng.randint(1, 9999)}"
    return "".join(rng.choices(string.ascii_lowercase + "áàâäçéèêëíîïñóôöøúüßšžčćőű", k=length)).capitalize()


def person(rng: random.Random) -> str:
    kind = rng.random()
    first = rng.choice(_FIRST) if rng.random() < 0.6 else word(rng)
    last = rng.choice(_LAST) if rng.random() < 0.5 else word(rng)
    if kind < 0.7:
        return f"{first} {last}"
    if kind < 0.78:
        return f"{rng.choice(string.ascii_uppercase)}. {rng.choice(string.ascii_uppercase)}. {last}"
    if kind < 0.84:
        return (
            f"{first} {rng.choice(('van', 'de', 'von', 'al', 'bin', 'da', 'Mc', 'Mac', 'O' + chr(39)))} {last}".replace(
                "Mc ", "Mc"
            ).replace("' ", "'")
        )
    if kind < 0.92:
        return f"{first} {rng.choice(_FIRST)} {last}"
    return f"{first} {last}-{rng.choice(_LAST)}"


def place(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return word(rng)
    if kind < 0.6:
        return f"{rng.choice(('New', 'Port', 'San', 'Saint', 'North', 'Upper', 'Fort', 'Lake', 'Mount'))} {word(rng)}"
    if kind < 0.8:
        return f"{word(rng)} {rng.choice(_PLACES)}"
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_PLACES)}"


def title(rng: random.Random) -> str:
    adjective, noun, other = rng.choice(_ADJECTIVES), rng.choice(_NOUNS), rng.choice(_NOUNS)
    return rng.choice(
        (
            f"{adjective} {noun}", f"The {adjective} {noun}", f"The {noun} of {word(rng)}", f"{noun} and {other}", f"The {noun} of the {other}",
            f"{noun}s of {adjective} {other}", f"{word(rng)}'s {noun}", f"A {noun} in {other}", f"{noun}", f"{adjective} {noun} {rng.randint(2, 9)}",
        )
    )  # fmt: skip


def organisation(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return f"{word(rng)} {rng.choice(_ORGANISATIONS)}"
    if kind < 0.6:
        return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} {rng.choice(_ORGANISATIONS)}"
    if kind < 0.75:
        return f"{rng.choice(_LAST)} & {rng.choice(_LAST)}"
    if kind < 0.88:
        return f"{word(rng)}{rng.choice(('', 'ix', 'ly', 'Soft', 'Tech', 'Bank', 'Net', '.io', ' 360'))}"
    return "".join(rng.choices(string.ascii_uppercase, k=rng.randint(2, 5)))


def quantity(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return str(rng.randint(1, 10 ** rng.randint(1, 6)))
    if kind < 0.5:
        return f"{rng.randint(1, 999)} {rng.choice(_UNITS)}"
    if kind < 0.75:
        return f"{rng.randint(1, 28)} {rng.choice(_MONTHS)} {rng.randint(1200, 2100)}"
    if kind < 0.85:
        return f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}, {rng.randint(1200, 2100)}"
    if kind < 0.91:
        return f"+{rng.randint(1, 999)}"
    if kind < 0.95:
        return f"{rng.randint(0, 99)}.{rng.randint(0, 99)} {rng.choice(_UNITS)}"
    return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"


def abbreviated(rng: random.Random) -> str:
    """Names with a full stop, a slash or a number inside, which are not the end of the statement."""
    number, letter = rng.randint(1, 999), rng.choice(string.ascii_uppercase)
    one, two = word(rng), rng.choice(_LAST)
    return rng.choice(
        (
            f"vol. {number}", f"Nr. {number}{letter}", f"v{rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}", f"Dr. {one}",
            f"St. {one}", f"{one} Jr.", f"{one} et al.", f"{letter}. {two}", f"{letter}/{number}", f"p. {number}", f"Mt. {two}",
            f"{one.lower()}.{rng.choice(('org', 'net', 'com'))}", f"{one}, {two}", f"{two} ({one})", f"{one} vs. {two}", f"ca. {number}",
            f"{letter}.{rng.choice(string.ascii_uppercase)}.{rng.choice(string.ascii_uppercase)}.", f"#{number}", f"{one}-{number}",
        )
    )  # fmt: skip


def common(rng: random.Random) -> str:
    """A lower-case word or two."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(_COLOURS)
    if kind < 0.65:
        return rng.choice(_NOUNS).lower()
    if kind < 0.85:
        return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}".lower()
    return word(rng).lower()


@cache
def _names_of(kind: str) -> tuple[str, ...]:
    """The world's names of an entity type, or all of them where it has none."""
    entities = load_world().entities
    return tuple(entities.get(kind, ())) or tuple(name for names in entities.values() for name in names)


@cache
def _letters(kind: str) -> dict[str, list[str]]:
    """What follows each three letters in the world's names of a kind; ``$`` ends a name."""
    follows: dict[str, list[str]] = {}
    for name in _names_of(kind):
        text = f"^^^{name}$"
        for at in range(3, len(text)):
            follows.setdefault(text[at - 3 : at], []).append(text[at])
    return follows


@cache
def _words() -> tuple[str, ...]:
    """English words: those of the relations' training wordings."""
    relations = load_world().relations.values()
    texts = [text for r in relations for text in (*r.cloze, *r.question, *r.noun)]
    return tuple(sorted({word.lower() for text in texts for word in re.findall(r"[A-Za-z]{4,}", text)}))


def alike(kind: str, rng: random.Random) -> str:
    """A name that sounds like the world's of this kind: a Markov chain of order 3 over letters."""
    follows = _letters(kind)
    text = "^^^"
    while len(text) < 30:
        letter = rng.choice(follows[text[-3:]])
        if letter == "$":
            break
        text += letter
    return text[3:]


def blend(rng: random.Random) -> str:
    """Words, or halves of words, of two names of the world put together."""
    left, right = (rng.choice(_names_of("")).split() for _ in range(2))
    if rng.random() < 0.5:
        return " ".join(left[: rng.randint(1, len(left))] + right[-rng.randint(1, len(right)) :])
    first, last = rng.choice(left), rng.choice(right)
    return first[: max(2, len(first) // 2)] + last[len(last) // 2 :].lower()


def phrase(rng: random.Random) -> str:
    """Ordinary words as a name."""
    one, two = rng.choice(_words()), rng.choice(_words())
    return rng.choice(
        (
            f"{one.capitalize()} the {two.capitalize()}", f"{one} {two}", f"{one.capitalize()} {two.capitalize()}", f"{one}-{two}",
            f"{rng.randint(2, 99)} {one}", f"The {one.capitalize()}'s {two.capitalize()}", f"{one.capitalize()} of {word(rng)}", one,
            f"{alike('person', rng)} {two.capitalize()}", f"A {one.capitalize()} on {two.capitalize()}",
        )
    )  # fmt: skip


_KINDS: dict[str, Callable[[random.Random], str]] = {
    "person": person, "place": place, "title": title, "organisation": organisation, "quantity": quantity, "common": common,
    "word": word, "arbitrary": arbitrary, "abbreviated": abbreviated,
}  # fmt: skip
_BY_ENTITY = {
    "person": "person", "city": "place", "country": "place", "landmark": "place", "river": "place", "mountain": "place", "island": "place",
    "continent": "place", "state": "place", "company": "organisation", "band": "organisation", "club": "organisation",
    "university": "organisation", "airline": "organisation", "book": "title", "film": "title", "song": "title", "artwork": "title",
    "composition": "title", "product": "title",
}  # fmt: skip


def invent(kind: str, rng: random.Random) -> str:
    """A name of the given entity type (any word); half of all names are not of the expected shape.

    The mix (half ordinary or sounding like the world's, a sixth arbitrary letters, the rest any shape) is what made
    copying general.
    """
    draw = rng.random()
    if draw < 0.3:
        name = _KINDS[_BY_ENTITY.get(kind, kind if kind in _KINDS else "word")](rng)
    elif draw < 0.5:
        name = alike(kind, rng)
    elif draw < 0.6:
        name = blend(rng)
    elif draw < 0.7:
        name = phrase(rng)
    elif draw < 0.8:
        name = arbitrary(rng)
    elif draw < 0.83:
        name = f"{arbitrary(rng)} {arbitrary(rng)}"
    elif draw < 0.87:
        name = f"{word(rng)} {arbitrary(rng)}"
    elif draw < 0.9:
        name = abbreviated(rng)
    else:
        name = rng.choice(list(_KINDS.values()))(rng)
    return name.strip()


def near(name: str, rng: random.Random) -> str:
    """A different name that looks like ``name``: what a gate and a model must not confuse with it."""
    words = name.split()
    kind = rng.random()
    if len(words) > 1 and kind < 0.5:
        index = rng.randrange(len(words))
        words[index] = word(rng) if rng.random() < 0.5 else rng.choice(_NOUNS)
        return " ".join(words)
    if kind < 0.75:
        return f"{rng.choice(('New', 'Little', 'Old', 'Upper', 'Saint', 'Young', 'The Second'))} {name}"
    return f"{name} {rng.choice(('II', 'Junior', 'Park', 'Street', 'Society', 'Annex', 'Beta', '2'))}"

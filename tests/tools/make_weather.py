"""Write examples/weather-bulletins.*.jsonl: sentences of weather bulletins in English, French and German.

    python tests/tools/make_weather.py

They are composed of the phrases below, at random with a seed. Adjectives agree with their nouns, and the order of the
words differs among the languages.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN, DEV, SEED = 600, 150, 4


class Said(NamedTuple):
    """A phrase or a sentence in three languages; `many`: it is a plural in English, and in German."""

    en: str
    fr: str
    de: str
    many: tuple[bool, bool] = (False, False)


ONE_MANY, MANY = (False, True), (True, True)
WEATHER = (
    Said("light rain", "une pluie faible", "leichter Regen"),
    Said("heavy rain", "une forte pluie", "starker Regen"),
    Said("light snow", "une neige faible", "leichter Schneefall"),
    Said("heavy snow", "une neige abondante", "starker Schneefall"),
    Said("drizzle", "de la bruine", "Nieselregen"),
    Said("hail", "de la grêle", "Hagel"),
    Said("dense fog", "un brouillard dense", "dichter Nebel"),
    Said("patchy fog", "des bancs de brouillard", "Nebelfelder", ONE_MANY),
    Said("scattered showers", "des averses éparses", "vereinzelte Schauer", MANY),
    Said("heavy showers", "de fortes averses", "kräftige Schauer", MANY),
    Said("isolated thunderstorms", "des orages isolés", "einzelne Gewitter", MANY),
    Said("severe thunderstorms", "de violents orages", "heftige Gewitter", MANY),
    Said("a light wind", "un vent faible", "schwacher Wind"),
    Said("a strong wind", "un vent fort", "starker Wind"),
    Said("strong gusts", "de fortes rafales", "kräftige Böen", MANY),
    Said("black ice", "du verglas", "Glatteis"),
    Said("ground frost", "des gelées au sol", "Bodenfrost"),
    Said("sunny spells", "des éclaircies", "sonnige Abschnitte", MANY),
    Said("low clouds", "des nuages bas", "tiefe Wolken", MANY),
)
PLACES = (
    Said("in the north", "dans le nord", "im Norden"),
    Said("in the south", "dans le sud", "im Süden"),
    Said("in the east", "dans l'est", "im Osten"),
    Said("in the west", "dans l'ouest", "im Westen"),
    Said("on the coast", "sur la côte", "an der Küste"),
    Said("at sea", "en mer", "auf See"),
    Said("in the mountains", "en montagne", "in den Bergen"),
    Said("in the valleys", "dans les vallées", "in den Tälern"),
    Said("in the plains", "dans les plaines", "in den Ebenen"),
    Said("near the lakes", "près des lacs", "an den Seen"),
    Said("along the border", "le long de la frontière", "entlang der Grenze"),
    Said("in the city", "en ville", "in der Stadt"),
)
DAYS = (
    Said("this morning", "ce matin", "heute Morgen"),
    Said("this afternoon", "cet après-midi", "heute Nachmittag"),
    Said("this evening", "ce soir", "heute Abend"),
    Said("tonight", "cette nuit", "heute Nacht"),
    Said("tomorrow morning", "demain matin", "morgen früh"),
    Said("tomorrow evening", "demain soir", "morgen Abend"),
    Said("on Monday", "lundi", "am Montag"),
    Said("on Tuesday", "mardi", "am Dienstag"),
    Said("on Wednesday", "mercredi", "am Mittwoch"),
    Said("on Thursday", "jeudi", "am Donnerstag"),
    Said("on Friday", "vendredi", "am Freitag"),
    Said("on Saturday", "samedi", "am Samstag"),
    Said("on Sunday", "dimanche", "am Sonntag"),
)
"""In the order in which they come, as far as `change` needs it."""
HOW = (
    Said("cold", "froid", "kalt"),
    Said("mild", "doux", "mild"),
    Said("hot", "très chaud", "heiß"),
    Said("dry", "sec", "trocken"),
    Said("cloudy", "nuageux", "bewölkt"),
    Said("windy", "venteux", "windig"),
    Said("changeable", "variable", "wechselhaft"),
)


def expected(chance: random.Random) -> Said:
    """Say what is expected, where and when."""
    what, where, when = (chance.choice(some) for some in (WEATHER, PLACES, DAYS))
    return Said(
        f"{what.en} {'are' if what.many[0] else 'is'} expected {where.en} {when.en}",
        f"on attend {what.fr} {where.fr} {when.fr}",
        f"{when.de} {'sind' if what.many[1] else 'ist'} {where.de} {what.de} zu erwarten",
    )


def plain(chance: random.Random) -> Said:
    """Say when there is what, and where."""
    what, where, when = (chance.choice(some) for some in (WEATHER, PLACES, DAYS))
    return Said(
        f"{when.en}, {what.en} {where.en}",
        f"{when.fr}, {what.fr} {where.fr}",
        f"{when.de} {where.de} {what.de}",
    )


def change(chance: random.Random) -> Said:
    """Say what comes after what."""
    what, then = chance.sample(WEATHER, 2)
    where, at = chance.choice(PLACES), chance.randrange(len(DAYS) - 1)
    when, later = DAYS[at : at + 2]
    return Said(
        f"{where.en}, {what.en} {when.en}, then {then.en} {later.en}",
        f"{where.fr}, {what.fr} {when.fr}, puis {then.fr} {later.fr}",
        f"{where.de} {when.de} {what.de}, {later.de} dann {then.de}",
    )


def careful(chance: random.Random) -> Said:
    """Warn drivers."""
    what, where, when = (chance.choice(some) for some in (WEATHER, PLACES, DAYS))
    return Said(
        f"drive carefully {when.en}: {what.en} {where.en}",
        f"conduisez prudemment {when.fr} : {what.fr} {where.fr}",
        f"Vorsicht beim Fahren {when.de}: {where.de} {what.de}",
    )


def feels(chance: random.Random) -> Said:
    """Say how the weather is, where and when."""
    how, where, when = (chance.choice(some) for some in (HOW, PLACES, DAYS))
    return Said(
        f"it will be {how.en} {where.en} {when.en}",
        f"le temps sera {how.fr} {where.fr} {when.fr}",
        f"{when.de} wird es {where.de} {how.de}",
    )


def degrees(chance: random.Random) -> Said:
    """Say how warm it gets, or how cold."""
    where, when, number = chance.choice(PLACES), chance.choice(DAYS), chance.randint(2, 35)
    if chance.random() < 0.5:
        return Said(
            f"highs of {number} degrees {where.en} {when.en}",
            f"maximales de {number} degrés {where.fr} {when.fr}",
            f"{when.de} Höchstwerte von {number} Grad {where.de}",
        )
    return Said(
        f"lows of minus {number} degrees {where.en} {when.en}",
        f"minimales de moins {number} degrés {where.fr} {when.fr}",
        f"{when.de} Tiefstwerte von minus {number} Grad {where.de}",
    )


SENTENCES: tuple[Callable[[random.Random], Said], ...] = (expected, plain, change, careful, feels, degrees)


def line_of(said: Said) -> str:
    """Write a sentence as a line of a data set. Pure."""
    en, fr, de = (f"{text[0].upper()}{text[1:]}." for text in said[:3])
    return json.dumps({"text": en, "translations": {"fr": fr, "de": de}}, ensure_ascii=False)


def lines(number: int, seed: int) -> list[str]:
    """Compose so many different lines. Pure: equal for equal arguments."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < number:
        found[line_of(chance.choice(SENTENCES)(chance))] = None
    return list(found)


def main() -> None:
    """Write both files."""
    made = lines(TRAIN + DEV, SEED)
    for part, some in (("train", made[:TRAIN]), ("dev", made[TRAIN:])):
        path = EXAMPLES / f"weather-bulletins.{part}.jsonl"
        path.write_text("".join(f"{line}\n" for line in some), encoding="utf-8")
        print(f"{path.name}: {len(some)} lines")


if __name__ == "__main__":
    main()

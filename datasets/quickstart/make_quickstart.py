#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the quickstart's instruction set: train.jsonl and test.jsonl beside this script, or in the folder given.

Four offices answer by house rules that nobody outside can know; each keeps its own kind of record:
  archive   name, town and year    -> one line of key=value
  depot     a sentence             -> the parcel's code in brackets
  recycling a thing                -> the bin of its material
  desk      a date in words        -> a stamp of digits
Each client holds one office's rows and a few of the others'. Answers are checked letter by letter; no input of the
test rows stands in the training rows. Every choice comes from random.random(), whose sequence Python guarantees.
"""
import json
import pathlib
import random
import sys

TRAIN_ROWS = 260  # a client
OWN_SHARE = 0.85
TEST_ROWS = 48  # a kind
SEED = 2024

FIRST = """Ada Ben Carla David Elena Felix Greta Hugo Irene Jonas Karin Leo Maria Nora Oscar Paula Robert Sofia
Thomas Ursula Victor Wanda""".split()
LAST = """Abbott Baker Carter Davis Evans Fisher Graham Hughes Irving Jensen Keller Larsen Meyer Novak Olsen Parker
Quinn Rossi Schmidt Turner Vogel Weber""".split()
TOWNS = """Oslo Lyon Porto Turin Ghent Bergen Leeds Basel Vienna Madrid Dublin Prague Warsaw Athens Zurich
Hamburg""".split()
MONTHS = """January February March April May June July August September October
November December""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
BINS = {
    "glass": "jar bottle mirror vase".split(),
    "paper": "newspaper envelope letter magazine".split(),
    "metal": "nail spoon key can".split(),
    "garden": "apple leaf flower banana".split(),
}
COLOURS = "red blue green white black yellow brown grey".split()
STATES = "old small broken large dirty cheap heavy light".split()
PLACES = "kitchen street office school market station".split()
CODE_LETTERS = "ABCDEFGHKLMNPRSTUVWXZ"


class Chance:
    """Choices made from random.random() alone."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, n):
        return int(self.random() * n)

    def pick(self, values):
        return values[self.below(len(values))]

    def shuffle(self, values):
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]


def archive(chance):
    first, last, town, year = chance.pick(FIRST), chance.pick(LAST), chance.pick(TOWNS), 1900 + chance.below(120)
    return "File this card.", f"{first} {last}, {town}, {year}", f"name={last};town={town};year={year}"


def depot(chance):
    code = chance.pick(CODE_LETTERS) + chance.pick(CODE_LETTERS) + str(100 + chance.below(900))
    town, day, colour = chance.pick(TOWNS), chance.pick(DAYS), chance.pick(COLOURS)
    text = chance.pick([
        f"The {colour} crate {code} left {town} on {day}.",
        f"On {day} parcel {code} came from {town}.",
        f"{town} waits for {code}, a {colour} box.",
    ])
    return "Note the parcel.", text, f"[{code}]"


def recycling(chance):
    label = chance.pick(list(BINS))
    item, state, colour = chance.pick(BINS[label]), chance.pick(STATES), chance.pick(COLOURS)
    return "Which bin?", f"the {state} {colour} {item} from the {chance.pick(PLACES)}", f"[bin:{label}]"


def desk(chance):
    year, month, day = 1990 + chance.below(40), chance.below(12), 1 + chance.below(28)
    return "Stamp this date.", f"{day} {MONTHS[month]} {year}", f"<{year}.{month + 1}.{day}>"


KINDS = {"archive": archive, "depot": depot, "recycling": recycling, "desk": desk}


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    chance, seen = Chance(SEED), set()

    def rows(kind, count):
        made = []
        while len(made) < count:
            instruction, text, output = KINDS[kind](chance)
            if text not in seen:
                seen.add(text)
                made.append({"category": kind, "instruction": instruction, "input": text, "output": output})
        return made

    test = [row for kind in KINDS for row in rows(kind, TEST_ROWS)]
    chance.shuffle(test)
    train = []
    for client, own in enumerate(KINDS, start=1):
        others = round(TRAIN_ROWS * (1 - OWN_SHARE) / (len(KINDS) - 1))
        mine = [row for kind in KINDS for row in
                rows(kind, others if kind != own else TRAIN_ROWS - others * (len(KINDS) - 1))]
        chance.shuffle(mine)
        train += [{"client": client, **row} for row in mine]
    for name, lines in (("train.jsonl", train), ("test.jsonl", test)):
        (out / name).write_bytes("".join(json.dumps(row) + "\n" for row in lines).encode())


if __name__ == "__main__":
    main()

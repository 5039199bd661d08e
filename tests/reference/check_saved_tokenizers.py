# SPDX-License-Identifier: Apache-2.0
"""Loads what save_for_transformers wrote with transformers.AutoTokenizer (5.23) and compares.

    check_saved_tokenizers.py SAVED_DIR

SAVED_DIR/NAME: tokenizer files and expected.json. The number of tokens, the roles, the ids of every text, and their
text without special tokens must be the same. Exit code 1 otherwise.
"""
import json
import os
import pathlib
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer


def check(folder):
    expected = json.loads((folder / "expected.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrong = [f"{role} {getattr(tokenizer, role)}, not {expected[role]}"
             for role in ("bos_token_id", "eos_token_id", "pad_token_id") if getattr(tokenizer, role) != expected[role]]
    if len(tokenizer) != expected["size"]:
        wrong.append(f"{len(tokenizer)} tokens, not {expected['size']}")
    for row in expected["rows"]:
        ids = tokenizer(row["text"]).input_ids
        shown = tokenizer.decode(row["ids"], skip_special_tokens=True)
        if ids != row["ids"] or shown != row["shown"]:
            wrong.append(f"{row['text']!r}: {ids} {shown!r}, not {row['ids']} {row['shown']!r}")
    print(f"{folder.name}: {'; '.join(wrong) or 'the same'}")
    return not wrong


if __name__ == "__main__":
    folders = sorted(pathlib.Path(sys.argv[1]).iterdir())
    sys.exit(0 if len(folders) == 30 and all([check(folder) for folder in folders]) else 1)

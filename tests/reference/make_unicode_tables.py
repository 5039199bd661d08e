# SPDX-License-Identifier: Apache-2.0
"""Makes src/text/unicode_tables.cpp: where the Unicode of Hugging Face's `tokenizers` and that of our libraries part.

    python3.11 tests/reference/make_unicode_tables.py        (tokenizers 0.23)

Character classes follow Oniguruma's Unicode 16 (PCRE2 10.42, like Python 3.11, has 14); normal forms follow an older
Unicode than utf8proc's, lower case and grapheme clusters a newer one. utf8proc is asked through ctypes, so that the
tables are those of the installed library.
"""
import ctypes
import io
import pathlib
import subprocess
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, normalizers, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parent.parent.parent / "src" / "text" / "unicode_tables.cpp"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf".split()
STABLE, COMPAT, COMPOSE, DECOMPOSE = 1 << 1, 1 << 2, 1 << 3, 1 << 4
LIBRARY = ctypes.CDLL("libutf8proc.so.2")
LIBRARY.utf8proc_grapheme_break.restype = ctypes.c_bool
LIBRARY.utf8proc_tolower.restype = ctypes.c_int32
LIBRARY.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)


def ours(text, options):
    data, out = text.encode(), ctypes.POINTER(ctypes.c_uint8)()
    size = LIBRARY.utf8proc_map(data, ctypes.c_ssize_t(len(data)), ctypes.byref(out), STABLE | options)
    return ctypes.string_at(out, size).decode()


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def oniguruma(category):
    """Code points that Oniguruma puts into a category."""
    cut = pre_tokenizers.Split(Regex(r"\p{%s}+" % category), "removed", invert=True)
    found = set()
    for _, (begin, end) in cut.pre_tokenize_str("".join(map(chr, POINTS))):
        found.update(POINTS[begin:end])
    return found


def newer():
    """(category, range) of characters that are new to PCRE2."""
    return sorted((a, b, category) for category in CATEGORIES
                  for a, b in ranges({c for c in oniguruma(category) if unicodedata.category(chr(c)) != category}))


def unknown_to_normal_forms():
    nfd, nfkd, found = normalizers.NFD(), normalizers.NFKD(), set()
    for c in POINTS:
        text = chr(c)
        if c < 0xC0 or 0xAC00 <= c <= 0xD7A3:
            continue
        canonical = ours(text, DECOMPOSE)
        if ours(text, DECOMPOSE | COMPAT) != nfkd.normalize_str(text):
            found.add(c)
            if len(canonical) == 2:
                found.add(ord(canonical[1]))
        order = LIBRARY.utf8proc_get_property(c)[1]
        if 0 < order < 240 and canonical == text and nfd.normalize_str("a\u0345" + text) == "a\u0345" + text:
            found.add(c)
    return ranges(found)


def extending():
    """What joins the cluster before it there and not here: a cluster of "C" and such a character folds to "c"."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["some text to learn from"] * 9), model_writer=model,
                                             vocab_size=40, hard_vocab_limit=False, minloglevel=2,
                                             normalization_rule_name="nmt_nfkc_cf")
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    fold = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap).normalize_str
    return ranges({c for c in POINTS if fold("C" + chr(c)) == "c" != fold(chr(c)) + "c"
                   and LIBRARY.utf8proc_grapheme_break(0x43, c)})


def lower_case():
    lower = normalizers.Lowercase()
    pairs = [(c, lower.normalize_str(chr(c))) for c in POINTS]
    wrong = [(c, ord(text)) for c, text in pairs if len(text) == 1 and ord(text) != LIBRARY.utf8proc_tolower(c)]
    rows = []
    for c, to in wrong:  # runs of one distance
        if rows and rows[-1][1] == c - 1 and rows[-1][2] == to - c:
            rows[-1][1] = c
        else:
            rows.append([c, c, to - c])
    return rows


def table(kind, name, rows):
    return f"constexpr {kind} {name}[] = {{\n" + ",\n".join("    {" + row + "}" for row in rows) + "};\n"


def main():
    hexadecimal = lambda *points: ", ".join(f"0x{c:X}" for c in points)
    text = ("// SPDX-License-Identifier: Apache-2.0\n// Made by tests/reference/make_unicode_tables.py.\n"
            '#include "unicode_tables.hpp"\n\nnamespace fsllm {\nnamespace {\n\n')
    text += table("CategoryRange", "kNewer", [f'{hexadecimal(a, b)}, "{category}"' for a, b, category in newer()]) + "\n"
    text += table("CodePointRange", "kUnknown", [hexadecimal(a, b) for a, b in unknown_to_normal_forms()]) + "\n"
    text += table("CodePointRange", "kExtending", [hexadecimal(a, b) for a, b in extending()]) + "\n"
    text += table("LowerRange", "kLower", [f"{hexadecimal(a, b)}, {d}" for a, b, d in lower_case()])
    text += """
}  // namespace

std::span<CategoryRange const> newer_characters() {
  return kNewer;
}

std::span<CodePointRange const> unknown_to_normal_forms() {
  return kUnknown;
}

std::span<CodePointRange const> newer_extending() {
  return kExtending;
}

std::span<LowerRange const> newer_lower_case() {
  return kLower;
}

}  // namespace fsllm
"""
    OUT.write_text(text)
    subprocess.run(["clang-format-14", "-i", str(OUT)], check=False)


if __name__ == "__main__":
    main()

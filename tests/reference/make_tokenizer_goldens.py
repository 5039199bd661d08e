# SPDX-License-Identifier: Apache-2.0
"""Makes tests/text/golden: small tokenizers of every kind we read, and what the Python packages `tokenizers` and
`sentencepiece` make of some texts with them.

    python tests/reference/make_tokenizer_goldens.py        (tokenizers 0.23, sentencepiece 0.2, tiktoken 0.14,
                                                             transformers 5.23)

One folder a tokenizer: its files, and cases.jsonl with rows
{"text", "ids" (special tokens added), "plain" (not added), "text_of_ids", "text_without_special"}.
"""
import base64
import io
import json
import pathlib
import random
import shutil
import tempfile
import unicodedata

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

OUT = pathlib.Path(__file__).resolve().parent.parent / "text" / "golden"
GPT2_ADDED = [
    AddedToken("<|end|>", special=True, normalized=False),
    AddedToken("<left>", special=True, lstrip=True, normalized=False),
    AddedToken("<right>", special=False, rstrip=True, normalized=False),
    AddedToken("<both>", special=True, lstrip=True, rstrip=True, normalized=True),
    AddedToken("cat", special=False, single_word=True, normalized=False),
    AddedToken("<|end|>x", special=False, normalized=False),
    AddedToken("caf\u00e9", special=False, normalized=True),
]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CORPUS = [
    "The farmer counted 12 sheep in the morning and 345 in the evening; he'd lost none of them.",
    "She said: \"We'll see whether it's true.\" They're not sure, I've heard, and I'm not either.",
    "def add(first, second):\n    return first + second\n\nprint(add(20, 22))\n",
    "In the garden the children were singing, the birds were singing, and the river was singing too.",
    "Der Fluß fließt über die Brücke; l'été dernier, le café était fermé. Привет, мир! 你好，世界。",
    "A client trains the adapter on its own data and sends the difference to the server, round by round.",
]
TEXTS = [
    "", " ", "  ", "\n", "\t\n \n", "a", " a", "a ", "  a  b   c    ", "The farmer's sheep.", "THEY'LL see, they'Re, it's",
    "12345678901 1 22 333 4444", "def f(x):\n\treturn x**2  \n\n\n  # done\r\n", "caf\u00e9 cafe\u0301 \u00e9t\u00e9",
    "Stra\u00dfe, \u01c5, \ufb01ne, \u216b, \u00b2\u00bd", "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f \uac00\uac01",
    "\u1100\u1161 \u0915\u094d\u0937\u093f", "\U0001f44d\U0001f3fd\U0001f1e9\U0001f1ea!", "\u00a0\u2003\u3000\u0085x\u180ey\u200bz",
    "<|end|>", "a<|end|>b", "a <|end|>x b", "a  <left>  b", "a  <right>  b", "a  <both>  b <both><both>",
    "cat cats a cat, concat cat_ cat", "<s>hello</s> world<unk>", "</s></s> x", "\u2581 \u2581\u2581 a\u2581b", "<0x0A>\u0120\u010a",
    "\x00\x01\x7f", "'s't're've'm'll'd 'S'\u017f", "         nine spaces", "x         \n         y", "1,234.56% (\u20ac7)...!?--",
    "https://example.org/a_b?c=d&e=%20#f", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the the the the the the the the singing singing singing singing singing singing singing",
    "\u0661\u0662\u0663 \U00010d41 \U00010d50 \U0001d2c0", "tab\tand\u00adsoft", "[INST] do it [/INST]",
]


def random_texts(count):
    dice = random.Random(7)
    alphabet = ([chr(c) for c in range(32, 127)] + list("\n\t\r  ''  ") + list("\u00e9\u00df\u0301\u4f60\u597d\u2581\u00a0\u0130\u212b\u1e69")
                + ["<s>", "</s>", "<|end|>", " cat ", "the ", "'ll", "12"])
    return ["".join(dice.choice(alphabet) for _ in range(dice.randint(1, 40))) for _ in range(count)]


def trained(byte_level, size=380, **model):
    """A BPE model learnt from CORPUS; tokens in GPT-2's byte alphabet or in characters."""
    tokenizer = Tokenizer(models.BPE(**model))
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if not byte_level:
        # Only the byte tokens' names were wanted, not their meaning as added tokens.
        document = json.loads(tokenizer.to_str())
        document["added_tokens"] = document["added_tokens"][:3]
        tokenizer = Tokenizer.from_str(json.dumps(document))
    return tokenizer


def bos_template(bos, token_id):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, token_id)])


def gpt2():
    t = trained(True)
    t.add_tokens(GPT2_ADDED)
    t.post_processor, t.decoder = processors.ByteLevel(trim_offsets=False), decoders.ByteLevel()
    return t


def smollm():
    t = trained(True)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.add_special_tokens(["<|end|>"])
    t.decoder = decoders.ByteLevel()
    return t


def llama3():
    t = trained(True, ignore_merges=True)
    t.add_special_tokens(["<|begin|>", "<|end|>"])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                            bos_template("<|begin|>", t.token_to_id("<|begin|>"))])
    t.decoder = decoders.ByteLevel()
    return t


def qwen():
    t = trained(True)
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.add_tokens(GPT2_ADDED)
    t.post_processor, t.decoder = processors.ByteLevel(trim_offsets=False), decoders.ByteLevel()
    return t


def neox():
    t = trained(True)
    t.normalizer = normalizers.NFC()
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 9)])
    t.add_special_tokens(["<|end|>"])
    t.post_processor, t.decoder = processors.ByteLevel(), decoders.ByteLevel()
    return t


def falcon():
    """Steps behind ByteLevel see its alphabet; a prefix space; RoBERTa's post-processor."""
    t = trained(True)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True),
                                               pre_tokenizers.Digits(individual_digits=False),
                                               pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "merged_with_next")])
    t.add_special_tokens(["<s>", "</s>"])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    t.decoder = decoders.ByteLevel()
    return t


def mistral():
    t = trained(False, 420, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.post_processor = bos_template("<s>", 1)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    return t


def llama2():
    """LLaMA 2's older form: the normalizer makes the spaces visible, and there is no pre-tokenizer."""
    t = mistral()
    t.pre_tokenizer = None
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return t


def metaspace_words():
    """Metaspace with split and always a prefix; unknown characters are fused; no byte fallback."""
    t = trained(False, 420, unk_token="<unk>", fuse_unk=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    t.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    return t


def bloom():
    """A pattern with a class within a class."""
    t = trained(True)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    t.post_processor, t.decoder = processors.ByteLevel(), decoders.ByteLevel()
    return t


def phi3():
    """LLaMA 2's older form; added tokens that take the white space behind them, and </s>, which is not special."""
    t = trained(False, 420, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.add_tokens([AddedToken("</s>", special=False, rstrip=True, normalized=False)])
    t.add_special_tokens([AddedToken(f"<|{name}|>", rstrip=True, normalized=False) for name in ("end", "user")])
    t.post_processor = bos_template("<s>", 1)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    return t


def gemma():
    """No prefix space; runs of line ends and of spaces are added tokens."""
    t = trained(False, 420, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.add_tokens([AddedToken(text * n, normalized=False) for text in ("\n", "\u2581") for n in range(2, 6)])
    t.post_processor = bos_template("<s>", 1)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return t


def charsmap_rules():
    """Lines of SentencePiece's TSV: what NFKC makes of some characters and letters with marks; no soft hyphens."""
    rules = {"\u00ad": "", "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u0301\u0301": "\u0301"}
    singles = [chr(c) for a, b in ((0xA0, 0x180), (0x2160, 0x2180), (0xFB00, 0xFB07), (0xFF01, 0xFF5F), (0x1D40, 0x1D60)) for c in range(a, b)]
    pairs = [a + b for a in "aceiouACEIOU" for b in "\u0300\u0301\u0302\u0308"]
    for text in singles + pairs:
        if unicodedata.normalize("NFKC", text) != text:
            rules.setdefault(text, unicodedata.normalize("NFKC", text))
    code = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{code(a)}\t{code(b)}\n" for a, b in sorted(rules.items()))


def unigram(byte_fallback):
    """A SentencePiece unigram model as a tokenizer.json, its precompiled map of characters as the normalizer."""
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
        rules.write(charsmap_rules())
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 20), model_writer=model, minloglevel=2, hard_vocab_limit=False,
            model_type="unigram", vocab_size=470 if byte_fallback else 220, byte_fallback=byte_fallback,
            normalization_rule_tsv=rules.name)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=0, byte_fallback=byte_fallback))
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t, normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)


def t5():
    t, charsmap = unigram(False)
    t.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    return t


def unigram_bytes():
    t, charsmap = unigram(True)
    t.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return t


def write(name, files, cases):
    folder = OUT / name
    folder.mkdir(parents=True)
    for file_name, content in files.items():
        (folder / file_name).write_bytes(content)
    with open(folder / "cases.jsonl", "w", encoding="utf-8") as out:
        for case in cases:
            out.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


def cases_of(tokenizer):
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # what the file says, not what training remembers
    cases = []
    for text in TEXTS + random_texts(10):
        ids = tokenizer.encode(text).ids
        cases.append({"text": text, "ids": ids, "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                      "text_of_ids": tokenizer.decode(ids, skip_special_tokens=False),
                      "text_without_special": tokenizer.decode(ids)})
    return cases


def write_json(name, tokenizer, pairs):
    document = json.loads(tokenizer.to_str())
    if not pairs and document["model"]["type"] == "BPE":
        document["model"]["merges"] = [" ".join(m) for m in document["model"]["merges"]]
    write(name, {"tokenizer.json": json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()}, cases_of(tokenizer))


def write_opt():
    """GPT-2's two files, with OPT's tokens and its rule to begin with </s>."""
    t = trained(True)
    t.add_special_tokens(["</s>", "<pad>"])
    document = json.loads(t.to_str())
    vocabulary = document["model"]["vocab"] | {"</s>": t.token_to_id("</s>"), "<pad>": t.token_to_id("<pad>")}
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>",
              "add_bos_token": True, "add_prefix_space": False}
    t.post_processor, t.decoder = bos_template("</s>", t.token_to_id("</s>")), decoders.ByteLevel()
    merges = "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in document["model"]["merges"])
    write("opt", {"vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(), "merges.txt": merges.encode(),
                  "tokenizer_config.json": json.dumps(config).encode()}, cases_of(t))


def write_tiktoken():
    """A vocabulary in LLaMA 3's form. tiktoken decodes special tokens, and does not skip them."""
    tokens = [bytes([byte]) for byte in range(256)]
    alphabet = {c: byte for byte, c in zip(tokens, map(bytes_to_character, range(256)))}
    for left, right in json.loads(trained(True, 420).to_str())["model"]["merges"]:
        tokens.append(b"".join(alphabet[c] for c in left + right))
    special = {"<|begin_of_text|>": len(tokens), "<|end_of_text|>": len(tokens) + 1, "<|eot_id|>": len(tokens) + 9}
    encoding = tiktoken.Encoding("golden", pat_str=LLAMA3, mergeable_ranks={t: i for i, t in enumerate(tokens)},
                                 special_tokens=special)
    cases = []
    for text in TEXTS + random_texts(10) + ["<|begin_of_text|>a b<|eot_id|>", "x <|end_of_text|> y"]:
        plain = encoding.encode(text, allowed_special="all")
        ids = [special["<|begin_of_text|>"]] + plain
        cases.append({"text": text, "ids": ids, "plain": plain, "text_of_ids": encoding.decode(ids)})
    lines = b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens))
    write("tiktoken", {"tokenizer.model": lines}, cases)


def bytes_to_character(byte):
    """GPT-2's byte alphabet."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


def write_clean_up():
    """t5 as transformers decodes it under clean_up_tokenization_spaces."""
    from transformers import PreTrainedTokenizerFast
    config = {"clean_up_tokenization_spaces": True, "eos_token": "</s>", "unk_token": "<unk>"}
    t = Tokenizer.from_file(str(OUT / "t5" / "tokenizer.json"))
    reference = PreTrainedTokenizerFast(tokenizer_object=t, **config)
    cases = []
    for text in TEXTS + ["He 's here . I do n't know , you 're right ! Is it ' so ' ? I 'm , we 've ."]:
        ids = t.encode(text).ids
        cases.append({"text": text, "ids": ids, "plain": t.encode(text, add_special_tokens=False).ids,
                      "text_of_ids": reference.decode(ids), "text_without_special": reference.decode(ids, skip_special_tokens=True)})
    write("t5_clean_up", {"tokenizer.json": (OUT / "t5" / "tokenizer.json").read_bytes(),
                          "tokenizer_config.json": json.dumps(config).encode()}, cases)


def write_sentencepiece(name, **options):
    """Rows without special tokens in their text: those are ours to parse, and tested elsewhere."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 20), model_writer=model, minloglevel=2,
                                             hard_vocab_limit=False, **options)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    cases = []
    for text in TEXTS + random_texts(10):
        if any(special in text for special in ("<s>", "</s>", "<unk>")):
            continue
        plain = processor.encode(text)
        case = {"text": text, "ids": [processor.bos_id()] + plain, "plain": plain}
        if processor.unk_id() not in plain:  # which sentencepiece decodes as " \u2047 ", and we drop as Hugging Face does
            case["text_without_special"] = processor.decode(plain)
        cases.append(case)
    write(name, {"tokenizer.model": model.getvalue()}, cases)


def write_prompts(name, tokenizer, eos):
    """Alpaca rows as Hugging Face users tokenise them: prompt + output + EOS together, the prompt alone for its length."""
    head = "Below is an instruction that describes a task"
    with_input = head + (", paired with an input that provides further context. Write a response that appropriately "
                         "completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:")
    without = head + ". Write a response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### Response:"
    with open(OUT / name / "prompts.jsonl", "w", encoding="utf-8") as out:
        for i, text in enumerate(TEXTS[3:27]):
            row = {"instruction": TEXTS[i + 4], "input": text.strip() if i % 2 else "", "output": TEXTS[-1 - i]}
            prompt = (with_input if row["input"] else without).format(row["instruction"], row["input"])
            row["ids"] = tokenizer.encode(prompt + row["output"] + eos).ids
            row["prompt_tokens"] = len(tokenizer.encode(prompt).ids)
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for make in (gpt2, smollm, llama3, qwen, neox, falcon, bloom, mistral, llama2, phi3, gemma, metaspace_words, t5, unigram_bytes):
        write_json(make.__name__, make(), pairs=make in (qwen, mistral, llama3))
    write_prompts("llama3", Tokenizer.from_file(str(OUT / "llama3" / "tokenizer.json")), "<|end|>")
    write_prompts("mistral", Tokenizer.from_file(str(OUT / "mistral" / "tokenizer.json")), "</s>")
    write_opt()
    write_tiktoken()
    write_clean_up()
    llama = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                 allow_whitespace_only_pieces=True)
    write_sentencepiece("sentencepiece_bpe", model_type="bpe", vocab_size=400, byte_fallback=True, **llama)
    write_sentencepiece("sentencepiece_unknown", model_type="bpe", vocab_size=120, **llama)
    write_sentencepiece("sentencepiece_symbols", model_type="bpe", vocab_size=120, user_defined_symbols=["[INST]", "  "], **llama)
    write_sentencepiece("sentencepiece_unigram", model_type="unigram", vocab_size=150, normalization_rule_name="identity")
    print(sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes in", OUT)


if __name__ == "__main__":
    main()

// SPDX-License-Identifier: Apache-2.0
// save_for_transformers OUT_DIR: every kind of golden tokenizer with added tokens, and with FS-LLM's, as
// save_tokenizer writes it, beside expected.json: what we make of some texts with it.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "fsllm/io/files.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "support.hpp"

namespace {

using namespace fsllm;
using nlohmann::json;

constexpr char const* kKinds[] = {"gpt2", "opt",   "smollm", "llama3",        "tiktoken",
                                  "qwen", "neox",  "bloom",  "llama2",        "mistral",
                                  "phi3", "gemma", "t5",     "unigram_bytes", "sentencepiece_bpe"};

// No blanks in front or twice: transformers 5.23 reads a tokenizer.model otherwise than SentencePiece does
// there, with added tokens or without.
constexpr char const* kTexts[] = {"Hello world<|stop|>",
                                  "The farmer's sheep.",
                                  "<tool>a b<|stop|>x",
                                  "a <|fill|> b",
                                  "12 345[PAD]",
                                  "def f(x):\n\treturn x**2\n",
                                  "<s>hi</s> there<tool><unk>",
                                  "\u00e9\u00e0 \u4f60\u597d"};

void save(std::string const& kind, TokenAdditions const& additions, std::filesystem::path const& out) {
  auto const golden = test::source_file("tests/text/golden/" + kind);
  std::filesystem::create_directories(out);
  save_tokenizer(golden, additions, out);
  auto const tokenizer = load_tokenizer(out);
  json expected{{"size", tokenizer->vocab_size()}, {"rows", json::array()}};
  for (auto const* text : kTexts) {
    auto const ids = load_tokenizer(golden, additions)->encode(text);
    expected["rows"].push_back({{"text", text}, {"ids", ids}, {"shown", tokenizer->decode(ids, true)}});
  }
  auto const role = [](auto id) { return id ? json(*id) : json(); };
  expected["eos_token_id"] = role(tokenizer->eos_id());
  expected["pad_token_id"] = role(tokenizer->pad_id());
  expected["bos_token_id"] = role(tokenizer->bos_id());
  write_file_atomic(out / "expected.json", expected.dump());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: save_for_transformers OUT_DIR\n");
    return 2;
  }
  std::filesystem::path const out = argv[1];
  for (std::string const kind : kKinds) {
    save(kind, {.eos = "<|stop|>", .pad = "<|fill|>", .additional = {"<tool>"}}, out / (kind + "_added"));
    save(kind, {.fs_llm = true}, out / (kind + "_fs_llm"));
  }
  return 0;
}

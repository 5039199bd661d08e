// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, tiktoken's or SentencePiece's tokenizer.model, or merges.txt: an Error, or a tokenizer
// whose ids all decode.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/json_tokenizer.hpp"
#include "fsllm/text/sentencepiece_tokenizer.hpp"
#include "gpt2_files.hpp"
#include "tiktoken.hpp"

namespace {

void use(fsllm::Tokenizer const& tokenizer) {
  auto const ids = tokenizer.encode("What is 12? It is <s> caf\xc3\xa9 \xff\n\n  end</s>");
  for (int32_t const id : ids)
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
  tokenizer.decode(ids);
  tokenizer.decode({-1, 0, 5, 1 << 30});
}

/// GPT-2's files: merges over a few letters.
fsllm::JsonTokenizer with_merges(std::string const& merges) {
  nlohmann::json const vocabulary{{"W", 0}, {"h", 1}, {"a", 2}, {"t", 3}, {"Wh", 4}, {"at", 5}, {"What", 6}};
  return {fsllm::gpt2_document(vocabulary, merges, {}, "fuzz"), {}, "sha256", "fuzz"};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string const bytes(reinterpret_cast<char const*>(data), size);
  try {
    if (bytes.starts_with('{'))
      use(fsllm::JsonTokenizer(fsllm::parse_json(bytes, "fuzz"), {}, "sha256", "fuzz"));
    else if (bytes.starts_with('#'))
      use(with_merges(bytes));
    else if (fsllm::is_tiktoken(bytes))
      use(*fsllm::read_tiktoken(bytes, {}, "sha256", "fuzz"));
    else
      use(fsllm::SentencePieceTokenizer(bytes, {}, "sha256", "fuzz"));
  } catch (fsllm::Error const&) {
  } catch (nlohmann::json::exception const&) {  // load_tokenizer makes it an Error
  }
  return 0;
}

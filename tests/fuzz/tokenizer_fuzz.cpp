// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, or a SentencePiece model: an Error, or a tokenizer whose ids all decode.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/json_tokenizer.hpp"
#include "fsllm/text/sentencepiece_tokenizer.hpp"

namespace {

void use(fsllm::Tokenizer const& tokenizer) {
  auto const ids = tokenizer.encode("What is 12? It is <s> caf\xc3\xa9 \xff\n\n  end</s>");
  for (int32_t const id : ids)
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
  tokenizer.decode(ids);
  tokenizer.decode({-1, 0, 5, 1 << 30});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string const bytes(reinterpret_cast<char const*>(data), size);
  try {
    if (bytes.starts_with('{'))
      use(fsllm::JsonTokenizer(fsllm::parse_json(bytes, "fuzz"), {}, "sha256", "fuzz"));
    else
      use(fsllm::SentencePieceTokenizer(bytes, {}, "sha256", "fuzz"));
  } catch (fsllm::Error const&) {
  } catch (nlohmann::json::exception const&) {  // load_tokenizer makes it an Error
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Small tokenizers of every kind against the Python packages; made by
// tests/reference/make_tokenizer_goldens.py.
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using Ids = std::vector<int32_t>;

class Golden : public testing::TestWithParam<char const*> {};

TEST_P(Golden, EncodesAndDecodesAsThePythonPackage) {
  auto const folder = test::source_file("tests/text/golden") / GetParam();
  auto const tokenizer = load_tokenizer(folder);
  int cases = 0;
  for_each_json_record(folder / "cases.jsonl", [&](nlohmann::json const& row, RecordPlace const& place) {
    SCOPED_TRACE(place.file + ":" + std::to_string(place.line) + ": " + row.at("text").dump());
    auto const text = row.at("text").get<std::string>();
    auto const ids = row.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer->encode(text), ids);
    EXPECT_EQ(tokenizer->encode(text), ids) << "from the word cache";
    EXPECT_EQ(tokenizer->encode(text, false), row.at("plain").get<Ids>());
    if (row.contains("text_without_special")) {
      EXPECT_EQ(tokenizer->decode(ids, true), row.at("text_without_special").get<std::string>());
    }
    if (row.contains("text_of_ids")) {
      EXPECT_EQ(tokenizer->decode(ids), row.at("text_of_ids").get<std::string>());
    }
    ++cases;
  });
  EXPECT_GT(cases, 30);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Golden,
                         testing::Values("gpt2", "opt", "smollm", "llama3", "tiktoken", "qwen", "neox",
                                         "falcon", "bloom", "mistral", "llama2", "phi3", "gemma",
                                         "metaspace_words", "t5", "t5_clean_up", "unigram_bytes",
                                         "sentencepiece_bpe", "sentencepiece_unknown",
                                         "sentencepiece_symbols", "sentencepiece_unigram"),
                         [](auto const& test) { return std::string(test.param); });

}  // namespace
}  // namespace fsllm

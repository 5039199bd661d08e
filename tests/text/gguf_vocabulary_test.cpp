// SPDX-License-Identifier: Apache-2.0
// Tokenizers of Hugging Face folders as metadata of GGUF files, read back.
#include "fsllm/text/gguf_vocabulary.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf_writer.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

constexpr char const* kTexts[] = {
    "Hello, world!", "  two  spaces", "It's 1234 o'clock\n\nnow.", "Grüße, Καλημέρα 你好", "", "tabs\tand 😀"};

class GgufVocabularyOf : public testing::TestWithParam<std::pair<char const*, int64_t>> {};

TEST_P(GgufVocabularyOf, ComesBackWithTheSameIds) {
  auto const [name, rows] = GetParam();
  auto const folder = test_data(std::string("tokenizers/") + name);
  if (folder.empty()) GTEST_SKIP() << "no test data: " << name;
  TempDir dir;
  GgufWriter(dir / "x.gguf", gguf_vocabulary(folder, rows), {}).commit();
  auto const before = load_tokenizer(folder), after = load_tokenizer(dir / "x.gguf");
  for (auto const* text : kTexts) {
    auto const ids = before->encode(text, false);
    EXPECT_EQ(after->encode(text, false), ids) << text;
    EXPECT_EQ(after->decode(ids), before->decode(ids)) << text;
  }
  EXPECT_EQ(after->eos_id(), before->eos_id());
  EXPECT_EQ(after->bos_id(), before->bos_id());
  bool const stays = json(gguf_vocabulary(dir / "x.gguf", rows)) == json(gguf_vocabulary(folder, rows));
  EXPECT_TRUE(stays) << "a GGUF file's own";
}

INSTANTIATE_TEST_SUITE_P(Real, GgufVocabularyOf,
                         testing::Values(std::pair{"gpt2", int64_t{50257}},
                                         std::pair{"llama2", int64_t{32000}},
                                         std::pair{"gpt2", int64_t{50304}}),
                         [](auto const& test) {
                           return test.param.first + std::to_string(test.param.second);
                         });

TEST(GgufVocabularyOfFolder, WhatLlamaCppHasNoNameForIsRefused) {
  TempDir dir;
  json document{{"version", "1.0"},
                {"added_tokens", json::array()},
                {"normalizer", nullptr},
                {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", true}}},
                {"post_processor", nullptr},
                {"decoder", {{"type", "ByteLevel"}}},
                {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}}}, {"merges", json::array()}}}};
  auto const write = [&] { write_file_atomic(dir / "tokenizer.json", document.dump()); };
  write();
  EXPECT_ERROR(gguf_vocabulary(dir.path(), 2), "is not one that this version knows by a name of llama.cpp");
  document["pre_tokenizer"]["add_prefix_space"] = false;
  write();
  EXPECT_EQ(gguf_vocabulary(dir.path(), 2).at("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(gguf_vocabulary(dir.path(), 3).at("tokenizer.ggml.tokens").back(), "[PAD2]");
  EXPECT_ERROR(gguf_vocabulary(dir.path(), 1), "2 tokens (the model has 1 embeddings)");
}

}  // namespace
}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
// Tokenizers in the metadata of GGUF files: llama.cpp's vocabularies and test vectors of the test data, and
// broken metadata.
#include "fsllm/text/gguf_tokenizer.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "damaged_vocabulary.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "gguf_builder.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr char const* kVocabularies = "tokenizers/llama.cpp-vocab/ggml-vocab-";

/// The tokenizer that the files of a vocabulary give.
std::unique_ptr<Tokenizer> tokenizer_of(json const& metadata) {
  TempDir dir;
  auto const files = read_gguf_tokenizer(metadata, "test");
  write_file_atomic(dir / files.file_name, files.content);
  json rules{{"add_bos_token", *files.rules.add_bos}, {"add_eos_token", *files.rules.add_eos}};
  if (files.rules.bos) rules["bos_token"] = *files.rules.bos;
  if (files.rules.eos) rules["eos_token"] = *files.rules.eos;
  write_file_atomic(dir / "tokenizer_config.json", rules.dump());
  return load_tokenizer(dir.path());
}

class GgufVocabulary : public testing::TestWithParam<char const*> {};

TEST_P(GgufVocabulary, GivesTheIdsOfLlamaCpp) {
  auto const stem = kVocabularies + std::string(GetParam()) + ".gguf";
  FSLLM_NEED_TEST_DATA(stem);
  auto const tokenizer = tokenizer_of(read_damaged_vocabulary(test_data(stem)));
  auto const texts = read_file(test_data(stem + ".inp"));
  std::ifstream expected(test_data(stem + ".out"));
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  int compared = 0;
  for (size_t begin = 0; begin < texts.size(); ++compared) {
    size_t const end = std::min(texts.find(kSeparator, begin), texts.size());
    auto const text = texts.substr(begin, end - begin);
    std::string line;
    ASSERT_TRUE(std::getline(expected, line));
    std::istringstream numbers(line);
    EXPECT_EQ(tokenizer->encode(text, false), Ids(std::istream_iterator<int32_t>(numbers), {})) << text;
    begin = end + kSeparator.size();
  }
  EXPECT_EQ(compared, 46);
}

TEST_P(GgufVocabulary, DamagedFilesAreRefused) {
  auto const file = kVocabularies + std::string(GetParam()) + ".gguf";
  FSLLM_NEED_TEST_DATA(file);
  EXPECT_ERROR(load_tokenizer(test_data(file)), "is not a valid GGUF file");
}

INSTANTIATE_TEST_SUITE_P(LlamaCpp, GgufVocabulary,
                         testing::Values("gpt-2", "llama-spm", "phi-3", "deepseek-coder", "starcoder"),
                         [](auto const& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// Merges a and b; digits one by one; id 5 is a special token, id 6 an added one.
json small_vocabulary() {
  return {{"general.architecture", "llama"},
          {"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "smollm"},
          {"tokenizer.ggml.tokens", {"a", "b", "ab", "1", "11", "<|end|>", "<added>", "\xC4\xA0"}},
          {"tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 3, 4, 1}},
          {"tokenizer.ggml.merges", {"a b", "1 1"}},
          {"tokenizer.ggml.bos_token_id", 5},
          {"tokenizer.ggml.eos_token_id", 5}};
}

TEST(GgufTokenizer, ByteLevelWithDigitsOneByOne) {
  auto metadata = small_vocabulary();
  EXPECT_EQ(tokenizer_of(metadata)->encode("ab11<|end|>a<added>"), (Ids{2, 3, 3, 5, 0, 6}));
  EXPECT_EQ(tokenizer_of(metadata)->decode({2, 5, 3}, true), "ab1");
  metadata["tokenizer.ggml.pre"] = "gpt-2";
  EXPECT_EQ(tokenizer_of(metadata)->encode("ab11"), (Ids{2, 4}));
}

TEST(GgufTokenizer, AddsBosWhereTheFileSaysSo) {
  auto metadata = small_vocabulary();
  EXPECT_EQ(tokenizer_of(metadata)->encode("a"), (Ids{0}));
  metadata["tokenizer.ggml.add_bos_token"] = true;
  EXPECT_EQ(tokenizer_of(metadata)->encode("a"), (Ids{5, 0}));
  EXPECT_EQ(tokenizer_of(metadata)->encode("a", false), (Ids{0}));
  metadata["tokenizer.ggml.add_bos_token"] = false;
  metadata["tokenizer.ggml.add_eos_token"] = true;
  EXPECT_EQ(tokenizer_of(metadata)->encode("a"), (Ids{0, 5}));
  metadata = small_vocabulary();
  metadata["tokenizer.ggml.pre"] = "llama-bpe";
  EXPECT_EQ(tokenizer_of(metadata)->encode("a"), (Ids{5, 0})) << "llama 3 adds it unless told otherwise";
}

TEST(GgufTokenizer, OldFilesOfKnownArchitecturesNeedNoPre) {
  auto metadata = small_vocabulary();
  metadata.erase("tokenizer.ggml.pre");
  EXPECT_ERROR(read_gguf_tokenizer(metadata, "x.gguf"), "x.gguf: tokenizer.ggml.pre = 'default'");
  metadata["general.architecture"] = "gpt2";
  EXPECT_EQ(tokenizer_of(metadata)->encode("11"), (Ids{4}));
}

TEST(GgufTokenizer, BrokenMetadataIsRefused) {
  auto const refused = [](char const* key, json const& value, char const* why) {
    auto metadata = small_vocabulary();
    metadata["tokenizer.ggml." + std::string(key)] = value;
    EXPECT_ERROR(tokenizer_of(metadata), why);
  };
  refused("model", "bert", "tokenizer.ggml.model = 'bert' (not a vocabulary of this version");
  refused("model", 3, "tokenizer.ggml.model is not a text");
  refused("pre", "smolm", "Did you mean 'smollm'?");
  refused("tokens", json::array(), "tokenizer.ggml.tokens is missing");
  refused("tokens", {"a", 1}, "tokenizer.ggml.tokens holds an entry of another type");
  refused("tokens", {"a", "b", "a", "c", "d", "e", "f", "g"}, "tokenizer.ggml.tokens holds 'a' twice");
  refused("token_type", {1, 1}, "tokenizer.ggml.token_type has 2 entries for 8 tokens");
  refused("token_type", {1, 1, 1, 1, 1, 1, 1, 9}, "tokenizer.ggml.token_type of token 7 is 9");
  refused("merges", "a b", "tokenizer.ggml.merges is not a list");
  refused("merges", {"a b c"}, "merge 0");
  refused("merges", {"a 1"}, "merge 0 needs 'a', '1' and 'a1'");
  refused("bos_token_id", 8, "tokenizer.ggml.bos_token_id is 8 (8 tokens)");
  refused("eos_token_id", -2, "tokenizer.ggml.eos_token_id is -2");
  refused("add_bos_token", 1, "tokenizer.ggml.add_bos_token is not a boolean");
  refused("model", "llama", "tokenizer.ggml.scores is missing");
}

TEST(GgufTokenizer, IsReadFromAFileAndExported) {
  TempDir dir;
  GgufBuilder builder;
  auto const key = [&](char const* name, uint32_t type) -> GgufBuilder& {
    return builder.key("tokenizer." + std::string(name), type);
  };
  auto const texts = [&](char const* name, std::vector<std::string> const& values) {
    key(name, 9).number(uint32_t{8}).number(uint64_t{values.size()});
    for (auto const& value : values) builder.text(value);
  };
  builder.header(0, 6);
  key("ggml.model", 8).text("gpt2");
  key("ggml.pre", 8).text("gpt-2");
  texts("ggml.tokens", {"a", "b", "ab", "<end>"});
  texts("ggml.merges", {"a b"});
  key("ggml.eos_token_id", 4).number(uint32_t{3});
  key("chat_template", 8).text("{{ messages }}");
  write_file_atomic(dir / "x.gguf", builder.bytes());
  ASSERT_TRUE(has_tokenizer(dir / "x.gguf"));
  auto const tokenizer = load_tokenizer(dir / "x.gguf");
  EXPECT_EQ(tokenizer->encode("abb"), (Ids{2, 1}));
  EXPECT_EQ(tokenizer->eos_id(), 3);
  export_gguf_tokenizer(dir / "x.gguf", dir.path());
  EXPECT_EQ(load_tokenizer(dir.path())->encode("abb"), (Ids{2, 1}));
  EXPECT_EQ(read_json(dir / "tokenizer_config.json").at("chat_template"), "{{ messages }}");
  write_file_atomic(dir / "none.gguf", GgufBuilder().header(0, 0).bytes());
  EXPECT_FALSE(has_tokenizer(dir / "none.gguf"));
}

}  // namespace
}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
// Real tokenizers on real texts. Expected ids: tests/reference/make_tokenizer_hashes.py
// (tests/text/real_tokenizers.json) and llama.cpp's own test vectors in the test data.
#include <zlib.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "real_texts.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

struct RealCase {
  char const* name;
  char const* file;     ///< below FSLLM_TEST_DATA
  char const* vectors;  ///< llama.cpp's test vectors, "" for none
};

constexpr RealCase kCases[] = {
    {"gpt2", "tokenizers/gpt2/tokenizer.json", "gpt-2"},
    {"gpt2-files", "tokenizers/gpt2/encoder.json", ""},
    {"gpt-neox", "tokenizers/gpt-neox/20B_tokenizer.json", "mpt"},
    {"qwen3", "tokenizers/qwen3/tokenizer.json.gz", "qwen2"},
    {"mistral-v3", "tokenizers/mistral-v3/tokenizer.json", ""},
    {"llama2", "tokenizers/llama2/tokenizer.model", "llama-spm"},
    {"llama3", "tokenizers/llama3/tokenizer.model", "llama-bpe"},
    {"mistral-v3-model", "tokenizers/mistral-v3/tokenizer.model.v3", ""},
    {"tiny", "tokenizers/tiny/test_model.model", ""},
    {"stories260K", "models/stories260K/tokenizer.model", ""},
};

/// The content of a file, plain or gzip.
std::string read_any(fs::path const& file) {
  std::string text(size_t{32} << 20, '\0');
  gzFile const stream = gzopen(file.c_str(), "rb");
  int const got = gzread(stream, text.data(), static_cast<unsigned>(text.size()));
  gzclose_r(stream);
  text.resize(static_cast<size_t>(std::max(got, 0)));
  return text;
}

/// A model folder that holds just this tokenizer, under the name it must have there.
std::unique_ptr<Tokenizer> load_alone(fs::path const& file) {
  test::TempDir folder;
  if (file.filename() == "encoder.json") {
    for (auto const* name : {"encoder.json", "vocab.bpe"})
      fs::copy_file(file.parent_path() / name, folder / name);
    return load_tokenizer(folder.path());
  }
  bool const is_json = file.string().find(".json") != std::string::npos;
  write_file_atomic(folder / (is_json ? "tokenizer.json" : "tokenizer.model"), read_any(file));
  return load_tokenizer(folder.path());
}

class RealTokenizer : public testing::TestWithParam<RealCase> {};

TEST_P(RealTokenizer, GivesEveryIdAndEveryText) {
  FSLLM_NEED_TEST_DATA(GetParam().file);
  auto const tokenizer = load_alone(test::test_data(GetParam().file));
  std::string bytes, decoded;
  int64_t tokens = 0, texts = 0;
  test::for_each_real_text([&](std::string const& text) {
    auto const ids = tokenizer->encode(text, false);
    ++texts;
    tokens += static_cast<int64_t>(ids.size());
    bytes.append(reinterpret_cast<char const*>(ids.data()), 4 * ids.size());
    decoded.append(tokenizer->decode(ids)).push_back('\0');
  });
  // GPT-2's two files and its tokenizer.json are the same tokenizer.
  auto const name = std::string(GetParam().name) == "gpt2-files" ? "gpt2" : GetParam().name;
  auto const expected = read_json(test::source_file("tests/text/real_tokenizers.json")).at(name);
  EXPECT_EQ(texts, expected.at("texts"));
  EXPECT_EQ(tokens, expected.at("tokens"));
  EXPECT_EQ(sha256(bytes), expected.at("sha256").get<std::string>());
  EXPECT_EQ(sha256(decoded), expected.at("decoded_sha256").get<std::string>());
}

class VectorsOfLlamaCpp : public testing::TestWithParam<RealCase> {};

TEST_P(VectorsOfLlamaCpp, AreEqual) {
  auto const stem = std::string("tokenizers/llama.cpp-vocab/ggml-vocab-") + GetParam().vectors + ".gguf";
  FSLLM_NEED_TEST_DATA(stem + ".inp");
  auto const tokenizer = load_alone(test::test_data(GetParam().file));
  auto const texts = read_file(test::test_data(stem + ".inp"));
  std::ifstream expected(test::test_data(stem + ".out"));
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
  EXPECT_GT(compared, 30);
}

std::string name_of(testing::TestParamInfo<RealCase> const& test) {
  std::string name = test.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::vector<RealCase> cases_with_vectors() {
  std::vector<RealCase> cases;
  for (auto const& each : kCases)
    if (each.vectors[0] != '\0') cases.push_back(each);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, RealTokenizer, testing::ValuesIn(kCases), name_of);
INSTANTIATE_TEST_SUITE_P(Tokenizers, VectorsOfLlamaCpp, testing::ValuesIn(cases_with_vectors()), name_of);

}  // namespace
}  // namespace fsllm

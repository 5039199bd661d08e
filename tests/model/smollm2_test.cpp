// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct, the model of the quickstart (tools/bootstrap.sh --with-demo-model), against
// transformers in float64 (make_smollm2_golden.py) and Hugging Face's tokenizer (make_tokenizer_hashes.py).
#include <ATen/ATen.h>
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "real_texts.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

fs::path model_file() {
  return source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
}

#define FSLLM_NEED_SMOLLM2()     \
  if (!fs::exists(model_file())) \
  GTEST_SKIP() << "no test data: " << model_file().string() << " (tools/bootstrap.sh --with-demo-model)"

/// Largest difference of all logits in the golden file, those of the best tokens among them.
double logit_error(CausalLM& model) {
  auto const golden = SafetensorsReader(source_file("tests/reference/smollm2/golden.safetensors")).tensors();
  double worst = 0;
  for (int row = 0; golden.contains(fmt::format("row{}.ids", row)); ++row) {
    auto const part = [&](char const* name) -> at::Tensor {
      return golden.at(fmt::format("row{}.{}", row, name));
    };
    at::Tensor const ids = part("ids");
    std::vector<int64_t> const tokens(ids.const_data_ptr<int64_t>(),
                                      ids.const_data_ptr<int64_t>() + ids.numel());
    auto const logits = all_logits(model, {tokens}).to(at::kDouble);
    auto const best = logits.gather(1, part("best").unsqueeze(1)).squeeze(1);
    worst = std::max(
        {worst, (logits.index_select(1, golden.at("columns")) - part("logits")).abs().max().item<double>(),
         (best - part("best_logits")).abs().max().item<double>()});
  }
  return worst;
}

TEST(SmolLm2, LogitsAreThoseOfTransformersInFloat64) {
  FSLLM_NEED_SMOLLM2();
  TempDir dir;
  auto const model = load_model(model_file(), {.cache_dir = dir.path()});
  auto const error = logit_error(*model);
  std::printf("SmolLM2: largest logit error %.2e\n", error);
  EXPECT_LE(error, 1e-4);
}

TEST(SmolLm2, NoSmallerTypeKeepsTheLogits) {
  FSLLM_NEED_SMOLLM2();
  for (std::string const type : {"fp16", "bf16"}) {
    auto const error = logit_error(*load_model(model_file(), {.storage_dtype = type}));
    std::printf("SmolLM2: largest logit error %.2e with weights in %s\n", error, type.c_str());
    EXPECT_GT(error, 1e-4) << type << " would do: let train.storage_dtype: auto use it";
  }
}

TEST(SmolLm2, TokenizerGivesEveryIdAndEveryText) {
  FSLLM_NEED_SMOLLM2();
  FSLLM_NEED_TEST_DATA("datasets/dolly15k-fed10");
  auto const tokenizer = load_tokenizer(model_file());
  std::string bytes, decoded;
  int64_t tokens = 0, texts = 0;
  for_each_real_text([&](std::string const& text) {
    auto const ids = tokenizer->encode(text);
    tokens += static_cast<int64_t>(ids.size());
    ++texts;
    bytes.append(reinterpret_cast<char const*>(ids.data()), 4 * ids.size());
    decoded.append(tokenizer->decode(ids)).push_back('\0');
  });
  auto const expected = read_json(source_file("tests/text/real_tokenizers.json")).at("smollm2");
  EXPECT_EQ(texts, expected.at("texts"));
  EXPECT_EQ(tokens, expected.at("tokens"));
  EXPECT_EQ(sha256(bytes), expected.at("sha256").get<std::string>());
  EXPECT_EQ(sha256(decoded), expected.at("decoded_sha256").get<std::string>());
}

TEST(SmolLm2, TokenizerKnowsItsSpecialTokens) {
  FSLLM_NEED_SMOLLM2();
  auto const tokenizer = load_tokenizer(model_file());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->encode("<|im_start|>user\n2024<|im_end|>").front(), 1);
  EXPECT_EQ(tokenizer->encode("<|im_start|>user\n2024<|im_end|>").back(), 2);
  EXPECT_EQ(tokenizer->encode("2024").size(), 4U);
  std::string const text =
      "In 2024, Ana paid $1,234.50.\n\n  na\xC3\xAFve \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x99\x82";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

}  // namespace
}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
// The tiny models of tests/reference as GGUF files (make_gguf_fixtures.py).
#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "gguf_builder.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

fs::path gguf(std::string const& name) {
  return source_file("tests/reference/gguf/" + name + ".gguf");
}

/// The fixture's folder; windows that GGUF does not know are taken out of its configuration.
fs::path same_in_hugging_face(std::string const& name, TempDir const& dir) {
  copy_model(source_file("tests/reference/" + name), dir / name);
  auto config = read_json(dir / name / "config.json");
  config["use_sliding_window"] = false;
  write_file_atomic(dir / name / "config.json", config.dump());
  return dir / name;
}

class GgufModel : public testing::TestWithParam<char const*> {};

TEST_P(GgufModel, LogitsAreThoseOfTheHuggingFaceFiles) {
  TempDir dir;
  auto const reference = load_reference(GetParam());
  auto const expected = all_logits(*load_model(same_in_hugging_face(GetParam(), dir)), reference.rows);
  EXPECT_TRUE(at::equal(all_logits(*load_model(gguf(GetParam())), reference.rows), expected));
  auto const cached = load_model(gguf(GetParam()), {.cache_dir = dir / "cache"});
  EXPECT_TRUE(at::equal(all_logits(*cached, reference.rows), expected));
}

TEST_P(GgufModel, ConfigurationIsThatOfTheHuggingFaceFiles) {
  TempDir dir;
  auto const read = load_model_config(gguf(GetParam()));
  auto const expected = load_model_config(same_in_hugging_face(GetParam(), dir));
  auto const facts = [](ModelConfig const& c) {
    return std::tuple(c.family, c.architecture, c.vocab_size, c.hidden_size, c.intermediate_size,
                      c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim, c.max_positions, c.norm_eps,
                      c.rope_theta, c.qkv_bias, c.tied_embeddings, c.bos_id, c.eos_ids, c.layer_windows);
  };
  EXPECT_EQ(facts(read), facts(expected));
}

TEST(GgufModels, SplitOnesAreWhole) {
  TempDir dir;
  auto const rows = load_reference("llama").rows;
  auto const expected = all_logits(*load_model(gguf("llama")), rows);
  auto const split = gguf("llama_split-00001-of-00003");
  EXPECT_TRUE(at::equal(all_logits(*load_model(split), rows), expected));
  EXPECT_TRUE(at::equal(all_logits(*load_model(split, {.cache_dir = dir / "cache"}), rows), expected));
}

INSTANTIATE_TEST_SUITE_P(Families, GgufModel, testing::Values("llama", "mistral", "qwen2", "gpt2"));

TEST(GgufModels, AreSavedInHuggingFaceLayout) {
  TempDir dir;
  auto const reference = load_reference("llama");
  save_model(dir / "out", *load_model(gguf("llama")), gguf("llama"), "fp32");
  auto const read = SafetensorsReader(dir / "out").tensors();
  auto const expected = SafetensorsReader(reference.dir).tensors();
  ASSERT_EQ(read.size(), expected.size());
  for (auto const& [name, values] : expected) EXPECT_TRUE(at::equal(read.at(name), values)) << name;
  EXPECT_TRUE(at::equal(all_logits(*load_model(dir / "out"), reference.rows),
                        all_logits(*load_model(reference.dir), reference.rows)));
}

TEST(GgufModels, AreCheckedWithoutValues) {
  auto const model = load_model(gguf("llama"), {.storage_dtype = "bf16", .values = false});
  for (auto const& [name, tensor] : model->parameters())
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
  TempDir dir;
  load_model(gguf("llama"), {.cache_dir = dir / "cache", .values = false});
  EXPECT_FALSE(fs::exists(dir / "cache"));
}

TEST(GgufModels, RefuseWhatThisVersionLacks) {
  TempDir dir;
  auto const config_of = [&](GgufBuilder const& builder) {
    std::ofstream(dir / "x.gguf") << builder.bytes();
    load_model_config(dir / "x.gguf");
  };
  auto const architecture = [](std::string const& name, uint64_t keys, uint64_t tensors = 0) {
    GgufBuilder builder;
    builder.header(tensors, keys).key("general.architecture", 8).text(name);
    return builder;
  };
  EXPECT_ERROR(config_of(architecture("lama", 1)), "x.gguf: general.architecture = 'lama'");
  EXPECT_ERROR(config_of(architecture("lama", 1)), "Did you mean 'llama'?");
  EXPECT_ERROR(config_of(architecture("llama", 1)), "has no tensor 'token_embd.weight'");
  auto experts = architecture("llama", 2, 1).key("llama.expert_count", 4).number(uint32_t{8});
  experts.tensor("token_embd.weight", {4, 8}, 0, 0).pad().data(128);
  EXPECT_ERROR(config_of(experts), "llama.expert_count = 8 (mixtures of experts are not available");
  auto sizes = architecture("llama", 1, 1);
  sizes.tensor("token_embd.weight", {4, 8}, 0, 0).pad().data(128);
  EXPECT_ERROR(config_of(sizes), "x.gguf: 'llama.embedding_length' is missing");
}

/// A file with the divisors of four frequencies (head size 8, base 500000).
ModelConfig scaled_by(std::vector<float> const& divisors, std::string const& type = "none") {
  TempDir dir;
  GgufBuilder builder;
  builder.header(2, 9)
      .key("llama.rope.scaling.type", 8)
      .text(type)
      .key("general.architecture", 8)
      .text("llama");
  for (auto const& [key, value] : {std::pair<char const*, uint32_t>{"embedding_length", 32},
                                   {"block_count", 1},
                                   {"attention.head_count", 4},
                                   {"feed_forward_length", 32},
                                   {"context_length", 131072},
                                   {"rope.dimension_count", 8}})
    builder.key(std::string("llama.") + key, 4).number(value);
  builder.key("llama.rope.freq_base", 6).number(500000.0F);
  builder.tensor("token_embd.weight", {32, 8}, 0, 0).tensor("rope_freqs.weight", {divisors.size()}, 0, 1024);
  builder.pad().data(1024);
  for (float const divisor : divisors) builder.number(divisor);
  std::ofstream(dir / "x.gguf") << builder.bytes();
  return load_model_config(dir / "x.gguf");
}

// Wavelengths 6, 167, 4443 and 118,000: the third lies between 8192 / 4 and 8192 / 1 and is interpolated
// (transformers, _compute_llama3_parameters), the last is divided by the factor.
TEST(GgufModels, DivisorsOfFrequenciesAreLlama3Scaling) {
  auto const config = scaled_by({1, 1, 2.6945297F, 8});
  EXPECT_EQ(config.rope_scaling, RopeScaling::llama3);
  EXPECT_EQ(config.rope_factor, 8);
  EXPECT_EQ(config.rope_low_freq_factor, 1);
  EXPECT_EQ(config.rope_high_freq_factor, 4);
  EXPECT_EQ(config.rope_original_positions, 8192);
  for (auto const& other : std::vector<std::vector<float>>{{1, 1, 2.8F, 8}, {1, 2, 2.69453F, 8}, {1, 1, 8}})
    EXPECT_ERROR(scaled_by(other), "rope_freqs.weight holds position scaling that is not llama3's");
  EXPECT_ERROR(scaled_by({1, 1, 2.6945297F, 8}, "yarn"),
               "llama.rope.scaling.type = 'yarn' (none and linear are read from GGUF files)");
}

}  // namespace
}  // namespace fsllm::test

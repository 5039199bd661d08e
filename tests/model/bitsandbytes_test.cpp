// SPDX-License-Identifier: Apache-2.0
// Matrices packed as bitsandbytes saves them: written, read, and refused where they are damaged.
#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/model/pack.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

class PackedFamily : public testing::TestWithParam<std::string> {};

TEST_P(PackedFamily, HasTheQuantisedMatricesOfItsBlocks) {
  auto const reference = load_reference(GetParam());
  auto const plain = load_model(reference.dir);
  int64_t const last = plain->config().num_layers - 1;
  for (auto const kind : {Quantization::int8, Quantization::nf4}) {
    TempDir dir;
    if (plain->config().conv1d) {
      EXPECT_ERROR(pack_blocks(reference.dir, {last}, kind, dir.path()), "stored transposed");
      continue;
    }
    pack_blocks(reference.dir, {last}, kind, dir.path());
    auto const packed = load_model(dir.path()), opened = load_model(dir.path(), {.values = false});
    EXPECT_EQ(weight_bytes(*packed), weight_bytes(*opened));
    EXPECT_LT(weight_bytes(*packed), weight_bytes(*plain));
    EXPECT_EQ(load_model_config(dir.path()), load_model_config(reference.dir));
    // The model whose matrices have been rounded so, and nothing else in it.
    auto const rounded = load_model(reference.dir),
               dequantised = load_model(dir.path(), {.storage_dtype = "fp32"});
    for (auto* linear : rounded->linears()) {
      if (block_of(linear->name) == last)
        linear->weight = QuantizedWeight(linear->weight, kind).dequantized();
      EXPECT_EQ(module_of(*packed, linear->name).quantized != nullptr, block_of(linear->name) == last);
      EXPECT_TRUE(at::equal(module_of(*dequantised, linear->name).weight, linear->weight.to(at::kFloat)))
          << linear->name;
      EXPECT_TRUE(at::equal(module_of(*packed, linear->name).plain_weight(), linear->weight)) << linear->name;
    }
    EXPECT_TRUE(
        tensors_near(all_logits(*packed, reference.rows), all_logits(*rounded, reference.rows), 1e-5));
    EXPECT_TRUE(at::equal(all_logits(*dequantised, reference.rows), all_logits(*rounded, reference.rows)));
    auto const saved = dir / "saved";
    save_model(saved, *packed, dir.path(), "fp32");
    EXPECT_TRUE(
        at::equal(all_logits(*load_model(saved), reference.rows), all_logits(*rounded, reference.rows)));
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PackedFamily, testing::ValuesIn(reference_names()));

/// What transformers' BitsAndBytesConfig needs.
TEST(Packed, SaysWhatIsPlain) {
  TempDir dir;
  pack_blocks(load_reference("llama").dir, {1}, Quantization::nf4, dir.path());
  auto const said = read_json(dir / "config.json").at("quantization_config");
  EXPECT_EQ(said.at("load_in_4bit"), true);
  EXPECT_EQ(said.at("load_in_8bit"), false);
  auto const skipped = said.at("llm_int8_skip_modules").get<std::vector<std::string>>();
  EXPECT_NE(std::find(skipped.begin(), skipped.end(), "lm_head"), skipped.end());
  EXPECT_NE(std::find(skipped.begin(), skipped.end(), "model.layers.0.mlp.up_proj"), skipped.end());
  EXPECT_EQ(std::find(skipped.begin(), skipped.end(), "model.layers.1.mlp.up_proj"), skipped.end());
}

std::string const kWeight = "model.layers.1.mlp.up_proj.weight", kModule = "model.layers.1.mlp.up_proj";

/// Loads the llama fixture, packed, with other tensors in the place of some; an undefined one is taken away.
void load_with(Quantization kind, TensorMap const& others) {
  TempDir dir;
  pack_blocks(load_reference("llama").dir, {1}, kind, dir.path());
  auto tensors = SafetensorsReader(dir.path()).tensors();
  for (auto& [name, tensor] : tensors) tensor = tensor.clone();
  for (auto const& [name, tensor] : others) {
    EXPECT_TRUE(tensors.contains(name)) << name;
    tensors.erase(name);
    if (tensor.defined()) tensors.emplace(name, tensor);
  }
  write_safetensors(dir / "model.safetensors", tensors);
  load_model(dir.path());
}

at::Tensor text(std::string const& bytes) {
  return at::tensor(std::vector<int64_t>(bytes.begin(), bytes.end()), at::kLong).to(at::kByte);
}

TEST(Packed, DamagedMatricesAreRefused) {
  auto const not_finite = at::full({1}, NAN);
  EXPECT_NO_THROW(load_with(Quantization::int8, {}));
  EXPECT_NO_THROW(load_with(Quantization::nf4, {}));
  EXPECT_ERROR(load_with(Quantization::int8, {{kModule + ".SCB", at::ones({3})}}), ".SCB has not");
  EXPECT_ERROR(load_with(Quantization::int8, {{kModule + ".SCB", {}}}),
               "a quantised checkpoint (bitsandbytes");
  auto const nf4 = [](std::string const& part, at::Tensor const& tensor) {
    load_with(Quantization::nf4, {{kWeight + part, tensor}});
  };
  EXPECT_ERROR(nf4(".absmax", {}), ".absmax is missing");
  EXPECT_ERROR(nf4(".absmax", at::zeros({1}, at::kByte)), ".absmax has not");
  EXPECT_ERROR(nf4(".nested_absmax", not_finite.expand({1}).clone()),
               ".nested_absmax holds values that are not finite");
  EXPECT_ERROR(nf4(".quant_map", at::linspace(-1, 1, 16)), "its code book is another one");
  EXPECT_ERROR(nf4("", at::zeros({2, 1}, at::kByte)), "has not");
  auto const state = [&](std::string const& said) { nf4(".quant_state.bitsandbytes__nf4", text(said)); };
  std::string const rest = R"("blocksize": 64, "nested_blocksize": 256, "nested_offset": 0.1)";
  EXPECT_ERROR(state("{"), "its quant_state has no shape");
  EXPECT_ERROR(state("[1]"), "its quant_state has no shape");
  EXPECT_ERROR(state(R"({"shape": [4, 4], "blocksize": 128, "nested_blocksize": 256, "nested_offset": 0})"),
               "blocks of 64 and 256 are read");
  EXPECT_ERROR(state(R"({"shape": [-4, 4], )" + rest + "}"), "its quant_state has no shape");
  EXPECT_ERROR(state(R"({"shape": ["a", 4], )" + rest + "}"), "its quant_state has no shape");
  EXPECT_ERROR(state(R"({"shape": [4, 4], )" + rest + "}"), "has shape [4, 4]");
  EXPECT_ERROR(state(R"({"shape": [2000000000, 2000000000], )" + rest + "}"), "has shape");
}

}  // namespace
}  // namespace fsllm::test

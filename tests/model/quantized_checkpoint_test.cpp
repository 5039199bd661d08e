// SPDX-License-Identifier: Apache-2.0
// Checkpoints that a quantiser has packed are called by its name.
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

std::string const kProjection = "model.layers.0.self_attn.q_proj";

/// The llama fixture with other tensors in the place of one projection's weight.
void load_with(TensorMap const& packed, json const& quantization) {
  auto const reference = load_reference("llama");
  TempDir dir;
  copy_model(reference.dir, dir.path());
  auto tensors = SafetensorsReader(reference.dir).tensors();
  if (!packed.empty()) tensors.erase(kProjection + ".weight");
  for (auto const& [name, tensor] : packed) tensors[kProjection + name] = tensor;
  write_safetensors(dir / "model.safetensors", tensors);
  auto config = read_json(reference.dir / "config.json");
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  std::ofstream(dir / "config.json") << config;
  load_model(dir.path(), {.values = false});
}

at::Tensor zeros(at::ScalarType type) {
  return at::zeros({4, 4}, type);
}

TEST(QuantizedCheckpoint, IsCalledByTheQuantizersName) {
  auto const fp8 = at::ScalarType::Float8_e4m3fn;
  std::vector<std::tuple<json, TensorMap, std::string>> const cases{
      {{{"quant_method", "fp8"}}, {{".weight", zeros(fp8)}, {".weight_scale_inv", zeros(at::kFloat)}}, "fp8"},
      {{{"quant_method", "gptq"}}, {{".qweight", zeros(at::kInt)}, {".g_idx", zeros(at::kInt)}}, "gptq"},
      {{{"quant_method", "awq"}}, {{".qweight", zeros(at::kInt)}, {".scales", zeros(at::kHalf)}}, "awq"},
      {{{"quant_method", "bitsandbytes"}},
       {{".weight", zeros(at::kByte)}, {".weight.absmax", zeros(at::kFloat)}},
       "bitsandbytes"},
      {{{"quant_method", "bitsandbytes"}}, {{".weight", zeros(at::kChar)}}, "bitsandbytes"},
      {{{"quant_method", "compressed-tensors"}}, {{".weight_packed", zeros(at::kInt)}}, "compressed-tensors"},
      {{{"bits", 4}}, {{".weight", zeros(at::kByte)}}, "unknown"},
      {json(), {{".qweight", zeros(at::kInt)}}, "gptq or awq"},
      {json(), {{".weight", zeros(at::kByte)}, {".weight.absmax", zeros(at::kFloat)}}, "bitsandbytes, 4 bit"},
  };
  for (auto const& [config, tensors, name] : cases)
    EXPECT_ERROR(load_with(tensors, config), "a quantised checkpoint (" + name + ": it holds " + kProjection);
}

TEST(QuantizedCheckpoint, PlainWeightsAreReadWhateverTheConfigSays) {
  EXPECT_NO_THROW(load_with({}, {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}}));
  EXPECT_NO_THROW(load_with({}, json("odd")));
}

TEST(QuantizedCheckpoint, SavedModelsSayNothingOfIt) {
  auto const reference = load_reference("llama");
  TempDir dir, out;
  copy_model(reference.dir, dir.path());
  auto config = read_json(reference.dir / "config.json");
  config["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
  std::ofstream(dir / "config.json") << config;
  save_model(out.path(), *load_model(dir.path()), dir.path(), "fp32");
  EXPECT_FALSE(read_json(out / "config.json").contains("quantization_config"));
}

/// A head that no longer is the embedding.
TEST(SavedModel, KeepsAnUntiedHead) {
  for (auto const* name : {"gpt2", "gemma", "llama3", "qwen3_tied", "opt", "bloom", "falcon"}) {
    SCOPED_TRACE(name);
    auto const reference = load_reference(name);
    auto const model = load_model(reference.dir);
    if (!model->config().tied_embeddings) continue;
    model->untie_head();
    model->head().weight.mul_(2);
    auto const expected = all_logits(*model, reference.rows);
    TempDir out;
    save_model(out.path(), *model, reference.dir, "fp32");
    auto const saved = load_model(out.path());
    EXPECT_FALSE(saved->config().tied_embeddings);
    EXPECT_TRUE(at::equal(all_logits(*saved, reference.rows), expected));
  }
}

}  // namespace
}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
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

/// A copy of a fixture whose tensors a test edits.
class Spoiled {
 public:
  explicit Spoiled(std::string const& name) : reference_(load_reference(name)) {
    copy_model(reference_.dir, dir_.path());
    tensors = SafetensorsReader(reference_.dir).tensors();
  }
  std::filesystem::path const& write() {
    write_safetensors(dir_ / "model.safetensors", tensors);
    return dir_.path();
  }
  Reference const& reference() const { return reference_; }
  TensorMap tensors;

 private:
  Reference reference_;
  TempDir dir_;
};

TEST(Load, MissingTensorsAreNamed) {
  Spoiled model("llama");
  model.tensors.erase("model.layers.1.mlp.up_proj.weight");
  model.tensors.erase("lm_head.weight");
  EXPECT_ERROR(load_model(model.write()), "missing: model.layers.1.mlp.up_proj.weight, lm_head.weight");
}

TEST(Load, UnexpectedTensorsAreNamed) {
  Spoiled model("qwen2");
  model.tensors["model.layers.2.mlp.up_proj.weight"] = at::zeros({2});
  EXPECT_ERROR(load_model(model.write()), "unexpected: model.layers.2.mlp.up_proj.weight");
}

TEST(Load, ManyMissingTensorsAreCounted) {
  Spoiled model("gpt2");
  model.tensors.clear();
  model.tensors["transformer.wte.weight"] = at::zeros({96, 32});
  EXPECT_ERROR(load_model(model.write()), "and 22 more");
}

TEST(Load, MisshapenTensorsAreNamed) {
  Spoiled model("llama");
  model.tensors["model.norm.weight"] = at::zeros({33});
  EXPECT_ERROR(load_model(model.write()), "model.norm.weight has shape [33] (config.json asks for [32])");
}

TEST(Load, IntegerWeightsAreRefused) {
  Spoiled model("llama");
  model.tensors["model.norm.weight"] = at::zeros({32}, at::kLong);
  EXPECT_ERROR(load_model(model.write()), "model.norm.weight has type I64");
}

TEST(Load, Gpt2KeysMayLackThePrefix) {
  Spoiled model("gpt2");
  TensorMap renamed;
  for (auto const& [name, tensor] : model.tensors)
    renamed[name.substr(std::string("transformer.").size())] = tensor;
  renamed["h.0.attn.bias"] = at::zeros({1, 1, 40, 40});
  model.tensors = renamed;
  auto const loaded = load_model(model.write());
  EXPECT_EQ(loaded->parameters().count("h.0.attn.c_attn.weight"), 1U);
  EXPECT_EQ(loaded->linears()[0]->name, "transformer.h.0.attn.c_attn");
  auto const expected = all_logits(*load_model(model.reference().dir), model.reference().rows);
  EXPECT_TRUE(at::equal(all_logits(*loaded, model.reference().rows), expected));
}

/// OPT's files were saved with "model.decoder.", with "decoder.", and with nothing before the names.
TEST(Load, OptKeysMayLackAPartOfThePrefix) {
  Spoiled model("opt_350m");
  auto const expected = all_logits(*load_model(model.reference().dir), model.reference().rows);
  auto const whole = model.tensors;
  for (std::string const prefix : {"decoder.", ""}) {
    model.tensors.clear();
    for (auto const& [name, tensor] : whole)
      model.tensors[prefix + name.substr(std::string("model.decoder.").size())] = tensor;
    auto const loaded = load_model(model.write());
    EXPECT_EQ(loaded->parameters().count(prefix + "project_in.weight"), 1U);
    EXPECT_EQ(loaded->linears()[0]->name, "model.decoder.project_in");
    EXPECT_TRUE(at::equal(all_logits(*loaded, model.reference().rows), expected));
  }
}

TEST(Load, ATiedHeadInTheFileIsIgnored) {
  Spoiled model("qwen2");
  model.tensors["lm_head.weight"] = at::zeros({96, 32});
  EXPECT_NO_THROW(load_model(model.write()));
}

TEST(Load, UnknownTypesAreNamed) {
  auto const dir = load_reference("llama").dir;
  EXPECT_ERROR(load_model(dir, {.storage_dtype = "bf17"}),
               "storage_dtype = 'bf17' (weights cannot be kept in that type). Did you mean 'bf16'?");
  EXPECT_ERROR(load_model(dir, {.compute_dtype = "int4"}), "train.compute_dtype = 'int4'");
}

TEST(Load, LinearsComeInLayerOrderWithTheirPaths) {
  auto const model = load_model(load_reference("qwen2").dir);
  std::vector<std::string> names;
  for (auto const* linear : model->linears()) names.push_back(linear->name);
  ASSERT_EQ(names.size(), 14U);
  EXPECT_EQ(names[0], "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(names[13], "model.layers.1.mlp.down_proj");
}

}  // namespace
}  // namespace fsllm::test

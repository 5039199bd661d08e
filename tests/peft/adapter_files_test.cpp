// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/peft/peft.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

class EveryAdapter : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(AdapterFiles, EveryAdapter, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryAdapter, WhatPeftWroteComesOutAgain) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  auto const peft = make_peft(read_adapter_config(reference.dir / "adapter"), *model, 0);
  TempDir dir;
  save_adapter(dir.path(), *peft, peft->state(), "base");
  auto const before = SafetensorsReader(reference.dir / "adapter", "adapter_model").tensors();
  auto const after = SafetensorsReader(dir.path(), "adapter_model").tensors();
  ASSERT_EQ(before.size(), after.size());
  for (auto const& [name, tensor] : before) EXPECT_TRUE(at::equal(after.at(name), tensor)) << name;
  auto const peft_wrote = read_json(reference.dir / "adapter/adapter_config.json");
  auto const we_wrote = read_json(dir / "adapter_config.json");
  for (auto const& [key, value] : we_wrote.items())
    EXPECT_TRUE(key == "base_model_name_or_path" || value == peft_wrote.at(key)) << key << ": " << value;
  EXPECT_EQ(we_wrote.at("base_model_name_or_path"), "base");
}

TEST(AdapterFiles, AllLinearIsSavedAsTheNamesItStandsFor) {
  auto const dir = load_reference("gpt2").dir;
  auto const model = load_model(dir);
  auto const peft = make_peft(peft_of("adapter_method: lora, target_modules: [all-linear]"), *model, 0);
  EXPECT_EQ(peft->adapter_config("base").at("target_modules"), json({"c_attn", "c_fc", "c_proj"}));
}

TEST(AdapterFiles, OtherValuesMustHaveTheSameLayout) {
  auto const model = load_model(load_reference("llama").dir);
  auto const peft = make_peft({.method = "lora"}, *model, 0);
  auto values = clone(peft->state());
  TempDir dir;
  values.begin()->second = at::zeros({3, 3});
  EXPECT_ERROR(save_adapter(dir.path(), *peft, values, "base"), "exported adapter");
}

/// A copy of the llama fixture's adapter to spoil.
class SpoiledAdapter : public testing::Test {
 protected:
  SpoiledAdapter() : reference_(load_reference("llama")) {
    config_ = read_json(reference_.dir / "adapter/adapter_config.json");
    tensors_ = SafetensorsReader(reference_.dir / "adapter", "adapter_model").tensors();
  }
  void load() {
    std::ofstream(dir_ / "adapter_config.json") << config_;
    write_safetensors(dir_ / "adapter_model.safetensors", tensors_);
    auto const model = load_model(reference_.dir);
    make_peft(read_adapter_config(dir_.path()), *model, 0);
  }
  Reference reference_;
  TempDir dir_;
  json config_;
  TensorMap tensors_;
};

TEST_F(SpoiledAdapter, LoadsUnspoiled) {
  EXPECT_NO_THROW(load());
}

TEST_F(SpoiledAdapter, HalfTensorsBecomeFp32) {
  for (auto& [name, tensor] : tensors_) tensor = tensor.to(at::kBFloat16);
  EXPECT_NO_THROW(load());
}

TEST_F(SpoiledAdapter, MissingTensorsAreNamed) {
  auto const name = tensors_.begin()->first;
  tensors_.erase(name);
  EXPECT_ERROR(load(), "lacks the tensor " + name);
}

TEST_F(SpoiledAdapter, UnexpectedTensorsAreNamed) {
  tensors_["base_model.model.lm_head.lora_A.weight"] = at::zeros({4, 32});
  EXPECT_ERROR(load(), "unexpected tensor base_model.model.lm_head.lora_A.weight");
}

TEST_F(SpoiledAdapter, MisshapenTensorsAreNamed) {
  config_["r"] = 5;
  EXPECT_ERROR(load(), "lora_A.weight has shape [4, 32] (this model and rank need [5, 32])");
}

TEST_F(SpoiledAdapter, WhatThisVersionCannotComputeIsNamed) {
  for (auto const& [key, value] : std::vector<std::pair<std::string, json>>{{"use_qalora", true},
                                                                            {"layer_replication", {0, 1}},
                                                                            {"modules_to_save", {"lm_head"}},
                                                                            {"lora_bias", true}}) {
    auto const kept = config_;
    config_[key] = value;
    EXPECT_ERROR(load(), "'" + key + "' = " + value.dump() + " (not available in this version)");
    config_ = kept;
  }
  config_["bias"] = "some";
  EXPECT_ERROR(load(), "'bias' = 'some' (must be one of none, all, lora_only)");
}

/// How an adapter started is over, unless PEFT changes the base model with it.
TEST_F(SpoiledAdapter, StartsAreOverOrNamed) {
  for (auto const& start :
       std::vector<json>{true, false, nullptr, "gaussian", "Gaussian", "eva", "orthogonal", "mica"}) {
    config_["init_lora_weights"] = start;
    EXPECT_NO_THROW(load()) << start;
  }
  for (auto const* start : {"pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"}) {
    config_["init_lora_weights"] = start;
    EXPECT_ERROR(load(), "the adapter belongs to base weights that PEFT changes");
  }
  config_["init_lora_weights"] = "pisa";
  EXPECT_ERROR(load(), "'init_lora_weights' = 'pisa' (not a start that PEFT knows)");
  config_["init_lora_weights"] = 3;
  EXPECT_ERROR(load(), "'init_lora_weights' = 3 (another kind of value is needed)");
}

TEST_F(SpoiledAdapter, LayersPatternNeedsLayersAsInPeft) {
  config_["layers_pattern"] = "layers";
  EXPECT_ERROR(load(), "'layers_pattern' = [layers] (layers_to_transform is empty: PEFT wants both)");
  config_["layers_to_transform"] = {0, 1};
  for (auto const& pattern : std::vector<json>{"layers", {"h", "layers"}, "lay.*", "", json::array()}) {
    config_["layers_pattern"] = pattern;
    EXPECT_NO_THROW(load()) << pattern;
  }
  config_["layers_pattern"] = "blocks";
  EXPECT_ERROR(load(), "layers_to_transform names no layer of this model");
}

TEST_F(SpoiledAdapter, OtherTypesAndImpossibleNumbersAreNamed) {
  config_["lora_dropout"] = 1.0;
  EXPECT_ERROR(load(), "adapter_config.json: 'lora_dropout' = 1 (must be in [0, 1))");
  config_["r"] = "four";
  EXPECT_ERROR(load(), "'r' = \"four\" (another kind of value is needed)");
  config_["peft_type"] = "ADALORA";
  EXPECT_ERROR(load(),
               "peft_type = 'ADALORA' (not available in this version). Use an adapter of type BOTTLENECK, "
               "IA3, LORA, ");
}

TEST(AdapterFiles, MissingFilesAreNamed) {
  TempDir dir;
  EXPECT_ERROR(read_adapter_config(dir.path()), "no adapter_config.json in " + dir.path().string());
  std::ofstream(dir / "adapter_config.json") << R"({"peft_type": "LORA", "target_modules": ["q_proj"]})";
  auto const config = read_adapter_config(dir.path());
  EXPECT_EQ(config.method, "lora");
  auto const model = load_model(load_reference("llama").dir);
  EXPECT_ERROR(make_peft(config, *model, 0), "adapter_model.safetensors");
}

}  // namespace
}  // namespace fsllm::test

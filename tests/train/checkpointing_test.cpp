// SPDX-License-Identifier: Apache-2.0
// Values that the backward pass computes again: the same bits as those that were kept.
#include "fsllm/model/checkpointing.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

struct Trained {
  char const* name;
  char const* model;
  char const* adapter;  ///< "": full parameters
  char const* storage = "auto";
};

void PrintTo(Trained const& what, std::ostream* out) {
  *out << what.name;
}

/// The model of this name under tests/reference/, which drops where its family can.
std::filesystem::path dropping_model(test::TempDir const& dir, std::string const& name) {
  auto const source = test::source_file("tests/reference/" + name);
  std::filesystem::copy_file(source / "model.safetensors", dir / "model.safetensors");
  auto json = read_json(source / "config.json");
  for (auto const* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout"})
    if (json.contains(key) && name != "falcon") json[key] = 0.1;
  std::ofstream(dir / "config.json") << json;
  return dir.path();
}

struct Outcome {
  std::vector<double> losses;
  TensorMap gradients, weights;
};

Outcome train(Trained const& what, Checkpointing checkpointing, std::string const& how) {
  test::TempDir dir;
  auto const model = load_model(dropping_model(dir, what.model), {.storage_dtype = what.storage});
  set_checkpointing(*model, checkpointing);
  std::unique_ptr<Peft> peft;
  if (*what.adapter == '\0') {
    model->make_trainable("fp32");
  } else {
    auto yaml = Config::parse(std::string("llm: {adapter: {use: True, args: [{") + what.adapter + "}]}}", "");
    peft = make_peft(load_peft_config(yaml), *model, 3);
  }
  auto parameters = peft ? peft->state() : model->parameters();
  auto const config = config_of("train: {local_update_steps: 3, optimizer: {type: SGD, lr: 0.05}" + how);
  auto const rows = rows_of_lengths({9, 4, 12, 9, 5, 16});
  Outcome outcome;
  auto const keep = [&](TensorMap const& live) {
    for (auto const& [name, tensor] : live)
      if (tensor.grad().defined())
        outcome.gradients[name + " in step " + std::to_string(outcome.losses.size())] = tensor.grad().clone();
  };
  LocalTraining local(*model, parameters, rows, config, {.seed = 4, .client = 2}, keep);
  while (!local.done()) outcome.losses.push_back(local.step().loss);
  outcome.weights = clone(parameters);
  return outcome;
}

void expect_same(TensorMap const& a, TensorMap const& b) {
  ASSERT_EQ(a.size(), b.size());
  for (auto const& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

class Checkpointed : public testing::TestWithParam<Trained> {};

TEST_P(Checkpointed, TrainsToTheSameBits) {
  std::string const rest = "dataloader: {shuffle: False, batch_size: ";
  for (auto const& how : {"}\n" + rest + "6}", ", micro_batch_size: 2}\n" + rest + "6, packing: none}"}) {
    auto const kept = train(GetParam(), Checkpointing::none, how);
    EXPECT_GT(kept.gradients.size(), 0U);
    for (auto const checkpointing : {Checkpointing::block, Checkpointing::selective}) {
      auto const again = train(GetParam(), checkpointing, how);
      EXPECT_EQ(again.losses, kept.losses);
      expect_same(again.gradients, kept.gradients);
      expect_same(again.weights, kept.weights);
    }
  }
}

constexpr char const* kLora = "r: 4, lora_dropout: 0.1, target_modules: all-linear";

INSTANTIATE_TEST_SUITE_P(
    Train, Checkpointed,
    testing::Values(
        Trained{"lora", "llama", kLora}, Trained{"lora_of_two", "llama", "r: 4, lora_dropout: 0.1"},
        Trained{"lora_on_head", "llama",
                "r: 4, lora_dropout: 0.1, target_modules: [down_proj, lm_head, embed_tokens]"},
        Trained{"lora_in_one_layer", "llama", "r: 4, target_modules: [q_proj], layers_to_transform: [1]"},
        Trained{"lora_and_biases", "gpt2", "r: 4, lora_dropout: 0.1, bias: all"},
        Trained{"lora_nf4", "llama", kLora, "nf4"}, Trained{"lora_bf16", "llama", kLora, "bf16"},
        Trained{"dora", "llama", "r: 4, use_dora: True, lora_dropout: 0.1, target_modules: all-linear"},
        Trained{"ia3", "llama", "adapter_method: ia3, target_modules: all-linear"},
        Trained{"bitfit", "gpt2", "adapter_method: bitfit"},
        Trained{"prompt", "gpt2", "adapter_method: prompt, num_virtual_tokens: 3"},
        Trained{"prefix", "gpt2", "adapter_method: prefix, num_virtual_tokens: 3"},
        Trained{"projected_prefix", "llama",
                "adapter_method: prefix, num_virtual_tokens: 3, prefix_projection: True"},
        Trained{"p_tuning", "llama",
                "adapter_method: p-tuning, num_virtual_tokens: 3, encoder_reparameterization_type: LSTM, "
                "encoder_dropout: 0.2"},
        Trained{"houlsby", "llama",
                "adapter_method: bottleneck, reduction_factor: 4, adapter_dropout: 0.1, inv_adapter: nice"},
        Trained{"pfeiffer", "llama",
                "adapter_method: bottleneck, architecture: pfeiffer, adapter_dropout: 0.1"},
        Trained{"compacter", "llama", "adapter_method: compacter, reduction_factor: 4, phm_dim: 2"},
        Trained{"mam", "llama",
                "adapter_method: mam, num_virtual_tokens: 3, encoder_hidden_size: 8, adapter_dropout: 0.1"},
        Trained{"full", "llama", ""}, Trained{"full_with_dropout", "gpt2", ""},
        Trained{"bloom", "bloom", kLora}, Trained{"falcon", "falcon", kLora},
        Trained{"gemma2", "gemma2", kLora}, Trained{"gpt_neo", "gpt_neo", kLora},
        Trained{"gpt_neox", "gpt_neox", kLora}, Trained{"opt_350m", "opt_350m", kLora},
        Trained{"phi3", "phi3", kLora}, Trained{"qwen3", "qwen3", kLora}, Trained{"full_bloom", "bloom", ""},
        Trained{"full_gemma2", "gemma2", ""}, Trained{"full_gptj", "gptj", ""},
        Trained{"full_opt", "opt_350m", ""}),
    [](auto const& test) { return std::string(test.param.name); });

/// Counts how often its linear runs.
struct Counting final : LinearAdapter {
  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, Pass const&) override {
    ++calls;
    return y;
  }
  int calls = 0;
};

TEST(Checkpointing, RunsBlocksAgainOnlyForGradients) {
  auto const calls = [](Checkpointing checkpointing, bool gradients) {
    auto const model = load_model(test::source_file("tests/reference/llama"));
    model->make_trainable("fp32");
    set_checkpointing(*model, checkpointing);
    auto const counting = std::make_shared<Counting>();
    model->linears().front()->adapter = counting;
    at::AutoGradMode const mode(gradients);
    RaggedInput const input{at::arange(3, 9), {0, 6}};
    auto const hidden = model->hidden_states(input.ids, model->pass(input));
    if (gradients) hidden.sum().backward();
    return counting->calls;
  };
  EXPECT_EQ(calls(Checkpointing::none, true), 1);
  EXPECT_EQ(calls(Checkpointing::selective, true), 1) << "products are kept";
  EXPECT_EQ(calls(Checkpointing::block, true), 2);
  EXPECT_EQ(calls(Checkpointing::block, false), 1);
}

}  // namespace
}  // namespace fsllm

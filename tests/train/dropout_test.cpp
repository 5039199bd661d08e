// SPDX-License-Identifier: Apache-2.0
// Dropout in training: the same masks however the rows of a step are cut into forward passes.
#include <ATen/ops/equal.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

struct Dropping {
  char const* name;
  char const* model;
  char const* adapter;
  bool model_drops = false;
};

void PrintTo(Dropping const& what, std::ostream* out) {
  *out << what.name;
}

/// Rows of other and of equal lengths.
TokenSplit some_rows() {
  TokenSplit split;
  int32_t row = 0;
  for (int const length : {9, 4, 12, 9, 5, 16}) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> target;
    for (int32_t i = 0; i < length; ++i) {
      ids.push_back(3 + (17 * row + 5 * i + i * i) % 90);
      target.push_back(i >= 2);
    }
    ++row;
    split.append(ids, target, -1);
  }
  return split;
}

struct Outcome {
  std::vector<double> losses;
  TensorMap weights;
};

class StepsWithDropout : public testing::TestWithParam<Dropping> {
 protected:
  Outcome train(std::string const& how, uint64_t seed = 4) const {
    auto const& what = GetParam();
    test::TempDir dir;
    auto const source = test::source_file(std::string("tests/reference/") + what.model);
    for (auto const* file : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(source / file, dir / file);
    if (what.model_drops) {
      auto json = read_json(source / "config.json");
      json.update({{"attn_pdrop", 0.1}, {"embd_pdrop", 0.1}, {"resid_pdrop", 0.1}});
      std::filesystem::remove(dir / "config.json");
      std::ofstream(dir / "config.json") << json;
    }
    auto const model = load_model(dir.path(), {.compute_dtype = "fp64"});
    auto yaml = Config::parse(std::string("llm: {adapter: {use: True, args: [{") + what.adapter + "}]}}", "");
    auto const peft = make_peft(load_peft_config(yaml), *model, 3);
    auto parameters = peft->state();
    auto training =
        Config::parse("train: {local_update_steps: 3, optimizer: {type: SGD, lr: 0.05}" + how, "run.yaml");
    auto const config = load_train_config(training);
    training.finish();
    auto const rows = some_rows();
    LocalTraining local(*model, parameters, rows, config, {.seed = seed, .client = 2});
    Outcome outcome;
    while (!local.done()) outcome.losses.push_back(local.step().loss);
    outcome.weights = clone(parameters);
    return outcome;
  }

  static double largest_difference(Outcome const& a, Outcome const& b) {
    double worst = 0;
    for (size_t step = 0; step < a.losses.size(); ++step)
      worst = std::max(worst, std::abs(a.losses[step] - b.losses[step]));
    for (auto const& [name, tensor] : a.weights)
      worst = std::max(worst, tensor.sub(b.weights.at(name)).abs().max().item<double>());
    return worst;
  }
};

TEST_P(StepsWithDropout, DoNotDependOnHowRowsAreCutAndPacked) {
  std::string const rest = "dataloader: {shuffle: False, batch_size: ";
  auto const whole = train("}\n" + rest + "6}");
  double worst = 0;
  for (auto const& how :
       {", micro_batch_size: 1}\n" + rest + "6}", ", micro_batch_size: 2}\n" + rest + "6}",
        ", micro_batch_size: 4}\n" + rest + "6, packing: none}", "}\n" + rest + "6, packing: none}",
        "}\ngrad: {grad_accum_count: 2}\n" + rest + "3}"}) {
    double const difference = largest_difference(train(how), whole);
    EXPECT_LE(difference, 1e-6) << how;
    worst = std::max(worst, difference);
  }
  std::printf("%s: largest difference %.1e\n", GetParam().name, worst);
  EXPECT_EQ(largest_difference(train("}\n" + rest + "6}"), whole), 0);
  EXPECT_GT(largest_difference(train("}\n" + rest + "6}", 5), whole), 1e-4) << "another seed drops others";
}

INSTANTIATE_TEST_SUITE_P(
    Train, StepsWithDropout,
    testing::Values(
        Dropping{"lora", "llama", "r: 4, lora_dropout: 0.1, target_modules: all-linear"},
        Dropping{"lora_on_head", "llama",
                 "r: 4, lora_dropout: 0.1, target_modules: [q_proj, lm_head, embed_tokens]"},
        Dropping{"dora", "llama", "r: 4, use_dora: True, lora_dropout: 0.1"},
        Dropping{"model", "gpt2", "r: 4, lora_dropout: 0.1", true},
        Dropping{"model_with_prompt", "gpt2", "adapter_method: prompt, num_virtual_tokens: 3", true},
        Dropping{"model_with_prefix", "gpt2", "adapter_method: prefix, num_virtual_tokens: 3", true},
        Dropping{"p_tuning", "llama",
                 "adapter_method: p-tuning, num_virtual_tokens: 3, encoder_reparameterization_type: LSTM, "
                 "encoder_dropout: 0.2"},
        Dropping{"bottleneck", "llama",
                 "adapter_method: bottleneck, reduction_factor: 4, adapter_dropout: 0.1"}),
    [](auto const& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace fsllm

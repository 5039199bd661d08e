// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/peft/peft.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

/// A reference model with its adapter attached.
struct Adapted {
  explicit Adapted(std::string const& name, LoadOptions const& options = {})
      : reference(load_reference(name)),
        model(load_model(reference.dir, options)),
        peft(make_peft(read_adapter_config(reference.dir / "adapter"), *model, 0)),
        state(peft->state()) {}
  void zero_grad() {
    for (auto& [name, tensor] : state) tensor.mutable_grad() = at::Tensor();
  }
  Reference reference;
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  TensorMap state;
};

double relative_error(at::Tensor const& actual, at::Tensor const& expected) {
  return actual.sub(expected).norm().item<double>() / expected.norm().item<double>();
}

class EveryFamilyLora : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Lora, EveryFamilyLora, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryFamilyLora, DefaultTargetsAreThoseOfPeft) {
  auto const config = load_model_config(load_reference(GetParam()).dir);
  auto const table = read_json(source_file("tests/reference/default_targets.json")).at(config.family);
  auto const sorted = [](std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return nlohmann::json(names);
  };
  EXPECT_EQ(sorted(config.lora_targets), table.at("lora"));
  EXPECT_EQ(sorted(config.ia3_targets), table.at("ia3"));
  EXPECT_EQ(sorted(config.ia3_feedforward), table.at("ia3_feedforward"));
}

TEST_P(EveryFamilyLora, LogitsAgreeWithPeft) {
  Adapted adapted(GetParam());
  auto const logits = all_logits(*adapted.model, adapted.reference.rows);
  int64_t start = 0;
  for (size_t row = 0; row < adapted.reference.rows.size(); ++row) {
    auto const& golden = adapted.reference.golden.at("row" + std::to_string(row) + ".lora_logits");
    EXPECT_TRUE(tensors_near(logits.narrow(0, start, golden.size(0)), golden, 1e-4)) << "row " << row;
    start += golden.size(0);
  }
}

TEST_P(EveryFamilyLora, GradientsAgreeWithPeft) {
  Adapted adapted(GetParam());
  mean_loss(*adapted.model, adapted.reference).backward();
  double worst = 0;
  for (auto const& [name, tensor] : adapted.state) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    double const error = relative_error(tensor.grad(), adapted.reference.golden.at("grad." + name));
    EXPECT_LE(error, 1e-4) << name;
    worst = std::max(worst, error);
  }
  std::printf("%s: largest relative gradient error %.2e\n", GetParam().c_str(), worst);
}

/// The ten losses of `update` steps against the golden ones.
template <class Update>
void expect_losses(Adapted& adapted, std::vector<double> const& golden, Update const& update) {
  double worst = 0;
  for (size_t step = 0; step < golden.size(); ++step) {
    auto const loss = mean_loss(*adapted.model, adapted.reference);
    EXPECT_NEAR(loss.item<double>(), golden[step], 1e-4 * golden[step]) << "step " << step;
    worst = std::max(worst, std::abs(loss.item<double>() - golden[step]) / golden[step]);
    adapted.zero_grad();
    loss.backward();
    at::NoGradGuard const no_grad;
    for (auto const& [name, tensor] : adapted.state) update(name, tensor, static_cast<double>(step + 1));
  }
  std::printf("%s: largest relative loss error %.2e\n", adapted.reference.dir.filename().c_str(), worst);
}

TEST_P(EveryFamilyLora, TenSgdLossesEqualPeft) {
  Adapted adapted(GetParam());
  expect_losses(adapted, adapted.reference.losses_sgd,
                [](auto const&, at::Tensor const& tensor, double) { tensor.add_(tensor.grad(), -0.1); });
}

TEST_P(EveryFamilyLora, TenAdamWLossesAgreeWithPeft) {
  Adapted adapted(GetParam());
  TensorMap first = clone(adapted.state), second = clone(adapted.state);
  for (auto* moments : {&first, &second})
    for (auto& [name, tensor] : *moments) tensor.zero_();
  expect_losses(adapted, adapted.reference.losses_adamw,
                [&](std::string const& name, at::Tensor const& tensor, double step) {
                  auto const grad = tensor.grad();
                  first[name].mul_(0.9).add_(grad, 0.1);
                  second[name].mul_(0.999).addcmul_(grad, grad, 0.001);
                  tensor.mul_(1 - 0.01 * 0.1);
                  auto const denominator = second[name].div(1 - std::pow(0.999, step)).sqrt_().add_(1e-8);
                  tensor.addcdiv_(first[name], denominator, -0.01 / (1 - std::pow(0.9, step)));
                });
}

TEST_P(EveryFamilyLora, MergedAgreesWithUnmerged) {
  Adapted adapted(GetParam(), {.compute_dtype = "fp64"});
  auto const plain =
      all_logits(*load_model(adapted.reference.dir, {.compute_dtype = "fp64"}), adapted.reference.rows);
  auto const before = all_logits(*adapted.model, adapted.reference.rows);
  adapted.peft->merge_into(*adapted.model);
  auto const after = all_logits(*adapted.model, adapted.reference.rows);
  EXPECT_TRUE(tensors_near(after, before, 2e-5));
  EXPECT_FALSE(tensors_near(after, plain, 0.1)) << "the adapter must matter";
}

TEST_P(EveryFamilyLora, HalfStorageGivesTheGradientsOfTheSameWeightsInFp32) {
  TempDir dir;
  Adapted exact(GetParam());
  save_model(dir.path(), *load_model(exact.reference.dir), exact.reference.dir, "bf16");
  auto const gradients = [&](LoadOptions const& options) {
    auto const model = load_model(dir.path(), options);
    auto const peft = make_peft(read_adapter_config(exact.reference.dir / "adapter"), *model, 0);
    mean_loss(*model, exact.reference).backward();
    TensorMap result;
    for (auto const& [name, tensor] : peft->state()) result[name] = tensor.grad().clone();
    return result;
  };
  auto const half = gradients({}), full = gradients({.storage_dtype = "fp32"}),
             fast = gradients({.compute_dtype = "bf16"});
  double errors = 0;  // of activations with 8 bits: 3 % of a gradient, more of small ones of q and k
  for (auto const& [name, gradient] : full) {
    EXPECT_LE(relative_error(half.at(name), gradient), 1e-5) << name;
    EXPECT_EQ(fast.at(name).scalar_type(), at::kFloat);
    auto const error = relative_error(fast.at(name), gradient);
    EXPECT_LE(error, 0.2) << name;
    errors += error;
  }
  EXPECT_LE(errors / static_cast<double>(full.size()), 0.08);
}

/// The reference's adapter with dropout.
PeftConfig with_dropout(Reference const& reference, double probability) {
  TempDir dir;
  auto json = read_json(reference.dir / "adapter/adapter_config.json");
  json["lora_dropout"] = probability;
  std::ofstream(dir / "adapter_config.json") << json;
  auto config = read_adapter_config(dir.path());
  config.init_from = (reference.dir / "adapter").string();
  return config;
}

TEST(Lora, DropoutIsReproducibleAndOffOutsideTraining) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const config = with_dropout(reference, 0.5);
  auto const peft = make_peft(config, *model, 0);
  auto const loss = [&](bool drops, uint64_t seed) {
    auto const rows = static_cast<int64_t>(reference.rows.size());
    return mean_loss(*model, reference, drops ? training(seed, rows) : PassOptions()).item<double>();
  };
  EXPECT_EQ(loss(true, 1), loss(true, 1));
  EXPECT_NE(loss(true, 1), loss(true, 2));
  EXPECT_EQ(loss(false, 1), loss(false, 2));
}

/// The gradient with a mask equals the finite difference of the loss with the same mask, and the mean over
/// masks of the branch is the branch without dropout.
TEST(Lora, DropoutGradientsAreThoseOfTheMaskedLoss) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir, {.compute_dtype = "fp64"});
  auto const config = with_dropout(reference, 0.4);
  auto const peft = make_peft(config, *model, 0);
  auto const state = peft->state();
  auto const loss = [&] {
    return mean_loss(*model, reference, training(9, static_cast<int64_t>(reference.rows.size())));
  };
  loss().backward();
  at::NoGradGuard const no_grad;
  for (auto const& [name, tensor] : state) {
    auto const value = tensor.view(-1)[5].item<double>(), step = 1.0 / 256;
    tensor.view(-1)[5].fill_(value + step);
    double const above = loss().item<double>();
    tensor.view(-1)[5].fill_(value - step);
    double const below = loss().item<double>();
    tensor.view(-1)[5].fill_(value);
    EXPECT_NEAR(tensor.grad().view(-1)[5].item<double>(), (above - below) / (2 * step), 2e-4) << name;
  }
}

TEST(Lora, DropoutScalesWhatItKeeps) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const config = with_dropout(reference, 0.25);
  auto const x = all_logits(*model, {reference.rows[0]}).narrow(1, 0, 32).contiguous();
  auto* linear = model->linears()[0];
  auto const base = linear->forward(x, Pass());
  auto const peft = make_peft(config, *model, 0);
  auto const expected = linear->forward(x, Pass()).sub(base);
  at::NoGradGuard const no_grad;
  at::Tensor sum = expected.mul(0);
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    auto const pass = model->pass(ragged({reference.rows[0]}), training(seed, 1));
    sum.add_(linear->forward(x, pass).sub_(base));
  }
  EXPECT_LE(relative_error(sum.div_(4000), expected), 0.02);
}

TEST(Lora, FreshAdaptersDoNothingAndDependOnTheSeed) {
  auto const reference = load_reference("gpt2");
  auto const model = load_model(reference.dir);
  auto const base = all_logits(*model, reference.rows);
  auto const peft = make_peft({.method = "lora"}, *model, 1);
  EXPECT_TRUE(at::equal(all_logits(*model, reference.rows), base));
  auto const state = peft->state();
  ASSERT_EQ(state.size(), 4U);
  auto const& a = state.at("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight");
  EXPECT_EQ(a.sizes(), (std::vector<int64_t>{8, 32}));
  EXPECT_NEAR(a.abs().max().item<double>(), 1 / std::sqrt(32.0), 0.02);
  EXPECT_NEAR(a.std().item<double>(), 1 / std::sqrt(3 * 32.0), 0.02);
  auto const drawn = clone(state);
  peft->initialize(1);
  EXPECT_TRUE(at::equal(a, drawn.at("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight")));
  peft->initialize(2);
  EXPECT_FALSE(at::equal(a, drawn.at("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight")));
}

TEST(Lora, TargetsFollowPeftsRule) {
  auto const reference = load_reference("llama");
  auto const sites = [&](std::string const& more) {
    auto const model = load_model(reference.dir);
    return make_peft(peft_of("adapter_method: lora" + more), *model, 0)->state().size() / 2;
  };
  EXPECT_EQ(sites(""), 4U);
  EXPECT_EQ(sites(", target_modules: [all-linear]"), 14U);
  EXPECT_EQ(sites(", target_modules: all-linear"), 14U);
  EXPECT_EQ(sites(", target_modules: [self_attn.q_proj, mlp.down_proj]"), 4U);
  EXPECT_EQ(sites(", target_modules: '[^x]*[qv]_proj'"), 4U);
  EXPECT_EQ(sites(", target_modules: [model.layers.1.mlp.up_proj]"), 1U);
  EXPECT_EQ(sites(R"(, target_modules: '.*\.layers\.0\..*_proj')"), 7U);
  EXPECT_EQ(sites(", target_modules: all-linear, layers_to_transform: [1]"), 7U);
  EXPECT_ERROR(sites(", target_modules: [q_proj, v_prj]"),
               "target_modules names 'v_prj' (no module of this llama model). Did you mean 'v_proj'?");
  EXPECT_ERROR(sites(", target_modules: [proj]"), "names 'proj'");
  EXPECT_ERROR(sites(", target_modules: q_proj"), "matches no module");
  EXPECT_ERROR(sites(", target_modules: '('"), "not a regular expression");
  EXPECT_ERROR(sites(", layers_to_transform: [2]"),
               "layers_to_transform names no layer of this model (it has 2)");
}

TEST(Lora, HeadAndEmbeddingAreTargetsByNameAlone) {
  auto const reference = load_reference("llama");
  auto const state = [&](std::string const& more) {
    auto const model = load_model(reference.dir);
    return make_peft(peft_of("adapter_method: lora" + more), *model, 0)->state();
  };
  std::string const head = "base_model.model.lm_head.lora_A.weight",
                    embedding = "base_model.model.model.embed_tokens.lora_embedding_A";
  EXPECT_EQ(state(", target_modules: all-linear").count(head), 0U);
  EXPECT_EQ(state(", target_modules: 'lm_head|.*embed_tokens'").size(), 4U);
  EXPECT_EQ(state(", target_modules: [embed_tokens]").count(embedding), 1U);
  EXPECT_EQ(state(", target_modules: [embed_tokens, q_proj], layers_to_transform: [1]").count(embedding), 0U)
      << "belongs to no layer";
  EXPECT_EQ(state(", target_modules: [lm_head, q_proj], layers_to_transform: [1]").count(head), 1U)
      << "named by its whole path";
  EXPECT_ERROR(state(", target_modules: [embed_tokens], use_dora: True"),
               "model.embed_tokens is an embedding, and DoRA on embeddings is not available");
  EXPECT_ERROR(state(", target_modules: [lm_heat]"), "names 'lm_heat' (no module of this llama model)");
}

TEST(Lora, ARankAboveTheWidthIsWarnedOf) {
  auto const model = load_model(load_reference("llama").dir);
  testing::internal::CaptureStdout();
  make_peft(peft_of("adapter_method: lora, r: 40"), *model, 0);
  EXPECT_NE(
      testing::internal::GetCapturedStdout().find("r = 40 (model.layers.0.self_attn.q_proj has the rank 32"),
      std::string::npos);
}

}  // namespace
}  // namespace fsllm::test

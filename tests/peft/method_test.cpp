// SPDX-License-Identifier: Apache-2.0
// Every method against what peft computes in float64 (tests/reference/make_adapter_goldens.py).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/generate.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(source_file("tests/reference/adapters")))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// What merging such an adapter is refused with; "" where weights can hold it.
std::string why_unmergeable(std::string const& method) {
  for (auto const* prompt : {"prompt", "prefix", "p-tuning"})
    if (method == prompt) return "virtual tokens are input of the model, no weights can hold them";
  if (method == "mam") return "no weights can hold all of its parts";
  bool const bottleneck = method == "bottleneck" || method == "compacter";
  return bottleneck ? "a bottleneck is not linear, no weights can hold it" : "";
}

class EveryMethod : public testing::TestWithParam<std::string> {
 protected:
  EveryMethod()
      : dir_(source_file("tests/reference/adapters")),
        facts_(read_json(dir_ / (GetParam() + ".json"))),
        reference_(load_reference(facts_.at("model"))),
        golden_(load_file(dir_ / (GetParam() + ".safetensors"))),
        model_(load_model(reference_.dir)) {}

  static TensorMap load_file(fs::path const& file) { return SafetensorsReader(file).tensors(); }

  /// The adapter that the YAML asks for, at the values of the golden one.
  std::unique_ptr<Peft> golden_peft(CausalLM& model) const {
    auto args = facts_.at("arguments").dump();
    auto peft = make_peft(peft_of(args.substr(1, args.size() - 2)), model, 0);
    TensorMap start;
    for (auto const& [name, tensor] : golden_)
      if (name.starts_with("state.")) start.emplace(name.substr(6), tensor);
    auto state = peft->state();
    at::NoGradGuard const no_grad;
    copy_values(state, start);
    return peft;
  }

  fs::path dir_;
  nlohmann::json facts_;
  Reference reference_;
  TensorMap golden_;
  std::unique_ptr<CausalLM> model_;
};
INSTANTIATE_TEST_SUITE_P(Methods, EveryMethod, testing::ValuesIn(cases()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryMethod, LogitsAgreeWithPeft) {
  auto const peft = golden_peft(*model_);
  auto const logits = all_logits(*model_, reference_.rows);
  EXPECT_TRUE(tensors_near(logits, golden_.at("logits"), 1e-4));
  std::printf("%s: largest logit error %.2e\n", GetParam().c_str(),
              logits.sub(golden_.at("logits")).abs().max().item<double>());
  peft->detach(*model_);
  EXPECT_TRUE(at::equal(all_logits(*model_, reference_.rows),
                        all_logits(*load_model(reference_.dir), reference_.rows)));
}

TEST_P(EveryMethod, GradientsAgreeWithPeft) {
  auto const peft = golden_peft(*model_);
  mean_loss(*model_, reference_).backward();
  double worst = 0;
  for (auto const& [name, tensor] : peft->state()) {
    auto const& expected = golden_.at("grad." + name);
    ASSERT_TRUE(tensor.grad().defined()) << name;
    double const norm = expected.norm().item<double>();
    double const error = tensor.grad().sub(expected).norm().item<double>() / std::max(norm, 1e-6);
    EXPECT_LE(error, 1e-4) << name;
    worst = std::max(worst, error);
  }
  std::printf("%s: largest relative gradient error %.2e\n", GetParam().c_str(), worst);
}

TEST_P(EveryMethod, TenLossesAgreeWithPeft) {
  auto const peft = golden_peft(*model_);
  auto const losses = facts_.at("losses").get<std::vector<double>>();
  ASSERT_EQ(losses.size(), 10U);
  double worst = 0;
  for (double const expected : losses) {
    auto const loss = mean_loss(*model_, reference_);
    worst = std::max(worst, std::abs(loss.item<double>() - expected) / expected);
    auto const state = peft->state();
    for (auto const& [name, tensor] : state) tensor.mutable_grad() = at::Tensor();
    loss.backward();
    at::NoGradGuard const no_grad;
    for (auto const& [name, tensor] : state) tensor.add_(tensor.grad(), -0.02);
  }
  EXPECT_LE(worst, 1e-4);
  std::printf("%s: largest relative loss error %.2e\n", GetParam().c_str(), worst);
}

/// What save_pretrained wrote, read here, scores the same; what is written here holds the same tensors.
TEST_P(EveryMethod, FilesOfPeftComeInAndGoOut) {
  if (!fs::exists(dir_ / GetParam())) return;  // peft has no such method; the next test reads what we write
  auto const peft = make_peft(read_adapter_config(dir_ / GetParam()), *model_, 0);
  EXPECT_TRUE(tensors_near(all_logits(*model_, reference_.rows), golden_.at("logits"), 1e-4));
  auto theirs = load_file(dir_ / GetParam() / "adapter_model.safetensors");
  // PEFT adds the base model's head and embedding where those are adapted, and loads files without them.
  std::erase_if(theirs, [](auto const& item) { return item.first.ends_with(".base_layer.weight"); });
  auto const other = load_model(reference_.dir);
  auto const trained = golden_peft(*other);
  TempDir out;
  save_adapter(out.path(), *trained, trained->state(), "base");
  auto const ours = load_file(out / "adapter_model.safetensors");
  ASSERT_EQ(ours.size(), theirs.size());
  for (auto const& [name, tensor] : theirs) {
    ASSERT_EQ(ours.count(name), 1U) << name;
    EXPECT_EQ(ours.at(name).sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(tensors_near(ours.at(name), tensor, 1e-5)) << name;
  }
  auto const peft_wrote = read_json(dir_ / GetParam() / "adapter_config.json");
  auto const config = read_json(out / "adapter_config.json");
  for (auto const& [key, value] : config.items())
    EXPECT_TRUE(key == "base_model_name_or_path" || key == "inference_mode" || key == "token_dim" ||
                key == "target_modules" || (peft_wrote.contains(key) && value == peft_wrote.at(key)))
        << key << ": " << value;
}

/// What a folder written here holds is read again, and may be gone on from with the same YAML.
TEST_P(EveryMethod, OwnFilesComeBack) {
  auto const trained = golden_peft(*model_);
  TempDir out;
  save_adapter(out.path(), *trained, trained->state(), "base");
  auto const other = load_model(reference_.dir), third = load_model(reference_.dir);
  auto const read = make_peft(read_adapter_config(out.path()), *other, 0);
  EXPECT_TRUE(tensors_near(all_logits(*other, reference_.rows), golden_.at("logits"), 1e-4));
  auto args = facts_.at("arguments");
  if (args.at("adapter_method") == "p-tuning" || args.value("prefix_projection", false)) return;
  auto const text = args.dump();
  auto const on = make_peft(
      peft_of(text.substr(1, text.size() - 2), "    init_from: " + out.path().string() + "\n"), *third, 0);
  for (auto const& [name, tensor] : trained->state())
    EXPECT_TRUE(at::equal(tensor, on->state().at(name))) << name;
}

TEST_P(EveryMethod, MergedAgreesWithUnmergedOrSaysWhy) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  auto const peft = golden_peft(*model);
  auto const before = all_logits(*model, reference_.rows);
  if (auto const why = why_unmergeable(facts_.at("arguments").at("adapter_method")); !why.empty()) {
    EXPECT_ERROR(peft->merge_into(*model), why);
    return;
  }
  peft->merge_into(*model);
  EXPECT_TRUE(tensors_near(all_logits(*model, reference_.rows), before, 2e-5));
}

TEST_P(EveryMethod, GenerationWithCacheEqualsWithout) {
  auto const peft = golden_peft(*model_);
  std::vector<GenerateRow> rows;
  std::vector<std::vector<int64_t>> texts = reference_.rows;
  for (auto const& ids : reference_.rows) rows.push_back({{ids.begin(), ids.end()}, 6});
  auto const answers = generate(*model_, rows);
  for (size_t row = 0; row < texts.size(); ++row) {
    for (int i = 0; i < 6; ++i)
      texts[row].push_back(all_logits(*model_, {texts[row]})[-1].argmax().item<int64_t>());
    EXPECT_EQ(std::vector<int64_t>(answers[row].begin(), answers[row].end()),
              std::vector<int64_t>(texts[row].end() - 6, texts[row].end()));
  }
}

TEST(PromptLearning, InitFromGoesOnOnlyWithWhatFilesHold) {
  auto const dir = source_file("tests/reference/adapters");
  auto const from = [&](std::string const& name) { return "    init_from: " + (dir / name).string() + "\n"; };
  EXPECT_ERROR(peft_of("adapter_method: prefix, prefix_projection: True", from("prefix_projection_llama")),
               "holds the keys and values that a projection made, not the projection");
  EXPECT_ERROR(peft_of("adapter_method: p-tuning", from("p_tuning_mlp_llama")),
               "goes on as 'prompt': PEFT saves what the encoder made, not the encoder");
  EXPECT_EQ(peft_of("adapter_method: prompt", from("p_tuning_mlp_llama")).virtual_tokens, 4);
  EXPECT_EQ(peft_of("adapter_method: prefix", from("prefix_projection_llama")).virtual_tokens, 4);
  EXPECT_ERROR(peft_of("adapter_method: prefix, num_virtual_tokens: 9", from("prefix_llama")),
               "num_virtual_tokens = 9 (the adapter of llm.adapter.init_from, ");
}

TEST(PromptLearning, TextBecomesTheFirstTokensRepeatedAndCut) {
  auto const model = load_model(load_reference("llama").dir);
  auto config = peft_of(
      "adapter_method: prompt, num_virtual_tokens: 5, prompt_tuning_init: TEXT, "
      "prompt_tuning_init_text: some words");
  EXPECT_EQ(config.init_text, "some words");
  config.init_ids = {7, 9, 11};
  auto const peft = make_peft(config, *model, 3);
  auto const expected = model->embeddings(at::tensor(std::vector<int64_t>{7, 9, 11, 7, 9}, at::kLong));
  EXPECT_TRUE(at::equal(peft->state().at("prompt_embeddings"), expected));
  EXPECT_EQ(peft->adapter_config("base").at("tokenizer_name_or_path"), "base");
}

TEST(PromptLearning, DropoutOfTheLstmIsReproducible) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const peft =
      make_peft(peft_of("adapter_method: p-tuning, num_virtual_tokens: 4, encoder_dropout: 0.5, "
                        "encoder_reparameterization_type: LSTM"),
                *model, 3);
  auto const loss = [&](bool drops, uint64_t seed) {
    auto const rows = static_cast<int64_t>(reference.rows.size());
    return mean_loss(*model, reference, drops ? training(seed, rows) : PassOptions()).item<double>();
  };
  EXPECT_EQ(loss(true, 1), loss(true, 1));
  EXPECT_NE(loss(true, 1), loss(true, 2));
  EXPECT_EQ(loss(false, 1), loss(false, 2));
}

TEST(Ia3, BadTargetsAreNamed) {
  auto const model = load_model(load_reference("llama").dir);
  auto const make = [&](std::string const& args) {
    make_peft(peft_of("adapter_method: ia3, " + args), *model, 1);
  };
  EXPECT_ERROR(make("feedforward_modules: [gate_proj]"),
               "llm.adapter.args[0].feedforward_modules names 'gate_proj' (none of target_modules)");
  EXPECT_ERROR(make("feedforward_modules: '.*gate.*'"), "feedforward_modules names '.*gate.*'");
  EXPECT_ERROR(make("feedforward_modules: 'a('"), "feedforward_modules = 'a(' (not a regular expression");
  EXPECT_ERROR(make("target_modules: [v_porj]"), "target_modules names 'v_porj'");
  EXPECT_ERROR(make("init_ia3_weights: False"), "init_ia3_weights = false (not available in this version)");
}

/// Targets without the family's feedforward modules have none.
TEST(Ia3, FeedforwardModulesAreThoseAmongTheTargets) {
  auto const model = load_model(load_reference("gpt2").dir);
  auto const config = [&](std::string const& args) {
    return make_peft(peft_of("adapter_method: ia3" + args), *model, 1)->adapter_config("base");
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(config(", target_modules: [c_attn]").at("feedforward_modules"), Names{});
  auto const all = config(", target_modules: [all-linear]");
  EXPECT_EQ(all.at("feedforward_modules"), Names{"mlp.c_proj"});
  EXPECT_EQ(all.at("target_modules"), (Names{"c_attn", "c_fc", "c_proj", "mlp.c_proj"}));
}

/// Files saved without the head's class lack "transformer.", and quantised weights are not among the
/// parameters.
TEST(BitFit, FindsBiasesBesideQuantisedWeightsWithoutThePrefix) {
  auto const dir = load_reference("gpt2").dir;
  TensorMap bare;
  for (auto const& [name, tensor] : SafetensorsReader(dir / "model.safetensors").tensors())
    bare.emplace(name.starts_with("transformer.") ? name.substr(12) : name, tensor);
  TempDir out;
  fs::copy_file(dir / "config.json", out / "config.json");
  write_safetensors(out / "model.safetensors", bare);
  auto const whole = load_model(dir), quantised = load_model(out.path(), {.storage_dtype = "int8"});
  auto const expected = make_peft(peft_of("adapter_method: bitfit"), *whole, 1)->state();
  auto const found = make_peft(peft_of("adapter_method: bitfit"), *quantised, 1)->state();
  ASSERT_EQ(found.size(), expected.size());
  for (auto const& [name, tensor] : expected) EXPECT_EQ(found.count(name), 1U) << name;
}

TEST(BitFit, GoesOnOnlyFromBiases) {
  auto const llama = load_model(load_reference("llama").dir);
  EXPECT_ERROR(make_peft(peft_of("adapter_method: bitfit"), *llama, 1),
               "llm.adapter.args[0].adapter_method = 'bitfit' (this llama model has no biases to train)");
  auto const gpt2 = load_model(load_reference("gpt2").dir);
  TempDir out;
  {
    auto const lora = make_peft(
        peft_of("adapter_method: lora, r: 1, bias: all, target_modules: [transformer.h.0.attn.c_attn]"),
        *gpt2, 1);
    save_adapter(out.path(), *lora, lora->state(), "base");
    lora->detach(*gpt2);
  }
  auto const on = peft_of("adapter_method: bitfit", "    init_from: " + out.path().string() + "\n");
  EXPECT_ERROR(make_peft(on, *gpt2, 1),
               "lora_A.weight holds an update (adapter_method: bitfit has none there)");
}

/// A bad argument of each method, and what its message names. A method without one fails here.
TEST(MethodTable, EveryMethodRejectsBadArgumentsByKey) {
  std::map<std::string, std::pair<std::string, std::string>> const bad = {
      {"lora", {"r: 0", "r = 0 (must be at least 1)"}},
      {"prefix", {"num_virtual_tokens: 0", "num_virtual_tokens = 0 (must be at least 1)"}},
      {"prompt", {"prompt_tuning_init: WORDS", "prompt_tuning_init = 'WORDS' (must be one of RANDOM, TEXT)"}},
      {"p-tuning", {"encoder_dropout: 1.5", "encoder_dropout = 1.5 (must be in [0, 1))"}},
      {"ia3", {"feedforward_modules: [head]", "feedforward_modules names 'head' (none of target_modules)"}},
      {"bitfit", {"task_type: SEQ_CLS", "task_type = SEQ_CLS (not available in this version)"}},
      {"bottleneck",
       {"non_linearity: tanh", "non_linearity = 'tanh' (must be one of auto, swish, relu, gelu)"}},
      {"compacter", {"phm_dim: 5", "phm_dim = 5 (no divisor of the model's hidden size 32)"}},
      {"mam", {"scaling: 0", "scaling = 0 (must be more than 0)"}},
  };
  auto const model = load_model(load_reference("gpt2").dir);
  for (auto const& method : known_peft_methods()) {
    SCOPED_TRACE(method);
    ASSERT_EQ(bad.count(method), 1U);
    auto const& [arguments, message] = bad.at(method);
    EXPECT_ERROR(make_peft(peft_of("adapter_method: " + method + ", " + arguments), *model, 1),
                 "llm.adapter.args[0]." + message);
  }
}

/// Builds every row of the table with its defaults; a second run has the same start, another seed another.
TEST(MethodTable, EveryMethodStartsFromItsSeed) {
  for (auto const* family : {"llama", "gpt2"})
    for (auto const& method : known_peft_methods()) {
      SCOPED_TRACE(method);
      if (method == "bitfit" && family == std::string("llama")) continue;  // has no biases
      auto const dir = load_reference(family).dir;
      auto const one = load_model(dir), two = load_model(dir);
      auto const config = peft_of("adapter_method: " + method);
      auto const first = make_peft(config, *one, 1), again = make_peft(config, *two, 1);
      EXPECT_FALSE(first->state().empty());
      for (auto const& [name, tensor] : first->state()) {
        EXPECT_TRUE(tensor.requires_grad() && tensor.is_leaf() && tensor.scalar_type() == at::kFloat) << name;
        EXPECT_TRUE(at::equal(tensor, again->state().at(name))) << name;
      }
      TempDir file;
      write_safetensors(file / "state.safetensors", first->state());
      again->initialize(2);
      auto live = again->state();
      at::NoGradGuard const no_grad;
      copy_values(live, SafetensorsReader(file / "state.safetensors").tensors());
      auto rows = load_reference(family).rows;
      for (auto& row : rows)  // some virtual tokens leave few positions
        row.resize(std::min(row.size(), static_cast<size_t>(one->config().max_positions)));
      EXPECT_TRUE(at::equal(all_logits(*one, rows), all_logits(*two, rows)));
    }
}

}  // namespace
}  // namespace fsllm::test

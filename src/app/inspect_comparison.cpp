// SPDX-License-Identifier: Apache-2.0
// Two adapters beside each other.
#include <ATen/ops/cat.h>
#include <ATen/ops/norm.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/app/inspect.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/eval/model_session.hpp"
#include "fsllm/eval/scoring.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/peft/low_rank.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

double square(double x) {
  return x * x;
}

/// ‖left right‖_F of what stands side by side, by QR: small sums keep their digits.
double norm_of(std::vector<at::Tensor> const& left, std::vector<at::Tensor> const& right) {
  return svd_of_product(at::cat(left, 1), at::cat(right, 0)).s.norm().item<double>();
}

/// "12" of "model.layers.12.self_attn.q_proj"; "other" where a name has no number.
std::string layer_of(std::string const& name) {
  for (size_t begin = 0; begin < name.size();) {
    auto const end = std::min(name.find('.', begin), name.size());
    auto const part = name.substr(begin, end - begin);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos) return part;
    begin = end + 1;
  }
  return "other";
}

/// Squares of squares of one layer, or of all.
struct Squares {
  double a = 0, b = 0, between = 0;
  void add(double norm_a, double norm_b, double distance) {
    a += square(norm_a);
    b += square(norm_b);
    between += square(distance);
  }
  Json facts() const {
    return {{"norm_a", std::sqrt(a)},
            {"norm_b", std::sqrt(b)},
            {"distance", std::sqrt(between)},
            {"relative_distance", a > 0 ? Json(std::sqrt(between / a)) : Json()}};
  }
};

/// What two adapters of LoRA add to the weights of each module; of any ranks.
std::map<std::string, Squares> products(std::map<std::string, Factors> const& a,
                                        std::map<std::string, Factors> const& b) {
  std::map<std::string, Squares> sums;
  for (auto const& [module, of_a] : a) {
    auto const found = b.find(module);
    if (found == b.end()) continue;
    auto const& of_b = found->second;
    FSLLM_CHECK(of_a.b.size(0) == of_b.b.size(0) && of_a.a.size(1) == of_b.a.size(1),
                "{} has another size in the two adapters. Give adapters of one model.", module);
    sums[module].add(norm_of({of_a.b}, {of_a.a}), norm_of({of_b.b}, {of_b.a}),
                     norm_of({of_a.b, of_b.b.neg()}, {of_a.a, of_b.a}));
  }
  return sums;
}

/// The tensors of any adapter, one by one.
std::map<std::string, Squares> tensors(TensorMap const& a, TensorMap const& b) {
  std::map<std::string, Squares> sums;
  for (auto const& [name, of_a] : a) {
    auto const found = b.find(name);
    if (found == b.end() || found->second.sizes() != of_a.sizes()) continue;
    auto const x = of_a.to(at::kDouble), y = found->second.to(at::kDouble);
    sums[name].add(x.norm().item<double>(), y.norm().item<double>(), x.sub(y).norm().item<double>());
  }
  return sums;
}

bool is_lora(TensorMap const& adapter) {
  return std::any_of(adapter.begin(), adapter.end(),
                     [](auto const& entry) { return entry.first.find("lora_B") != std::string::npos; });
}

/// ‖B‖ over all modules: 0 is an adapter that does nothing.
double norm_of_b(TensorMap const& adapter) {
  double sum = 0;
  for (auto const& [name, tensor] : adapter)
    if (name.find("lora_B") != std::string::npos || name.find("lora_embedding_B") != std::string::npos)
      sum += square(tensor.to(at::kDouble).norm().item<double>());
  return std::sqrt(sum);
}

TensorMap tensors_of(fs::path const& adapter) {
  auto const file = adapter / "adapter_model.safetensors";
  FSLLM_CHECK(fs::exists(file),
              "{} holds no adapter_model.safetensors (two adapters are compared). Give PEFT folders.",
              adapter.string());
  return SafetensorsReader(file).tensors();
}

Json only_in(TensorMap const& a, TensorMap const& b) {
  auto names = Json::array();
  for (auto const& [name, tensor] : a)
    if (auto const found = b.find(name); found == b.end() || found->second.sizes() != tensor.sizes())
      names.push_back(name);
  return names;
}

}  // namespace

Json compare_adapters(fs::path const& a, fs::path const& b) {
  auto const of_a = tensors_of(a), of_b = tensors_of(b);
  bool const lora = is_lora(of_a) && is_lora(of_b);
  auto const sums = lora ? products(read_lora_factors(a), read_lora_factors(b)) : tensors(of_a, of_b);
  Squares all;
  std::map<std::string, Squares> layers;
  for (auto const& [name, one] : sums)
    for (auto* const into : {&all, &layers[layer_of(name)]})
      into->add(std::sqrt(one.a), std::sqrt(one.b), std::sqrt(one.between));
  auto const unmatched_a = only_in(of_a, of_b), unmatched_b = only_in(of_b, of_a);
  Json facts{{"kind", "comparison"},
             {"a", a.string()},
             {"b", b.string()},
             {"compared", lora ? "s B A of each module" : "tensors"},
             {"matched", of_a.size() - unmatched_a.size()},
             {"only_in_a", unmatched_a},
             {"only_in_b", unmatched_b}};
  if (is_lora(of_a)) facts["norm_of_lora_B"]["a"] = norm_of_b(of_a);
  if (is_lora(of_b)) facts["norm_of_lora_B"]["b"] = norm_of_b(of_b);
  facts.update(all.facts());
  std::vector<std::string> order;
  for (auto const& [layer, one] : layers) order.push_back(layer);
  std::ranges::sort(order, {}, [](std::string const& layer) { return std::pair(layer.size(), layer); });
  for (auto const& layer : order) facts["layers"][layer] = layers.at(layer).facts();
  return facts;
}

Json losses_on(fs::path const& model_dir, std::vector<fs::path> const& adapters, std::string const& text) {
  ModelSession session(model_dir, {.cache_dir = user_cache_dir()});
  Json losses;
  auto const add = [&](std::string const& name) {
    FSLLM_CHECK(session.tokenizer() != nullptr,
                "{} holds no tokenizer (--text is a text). Put tokenizer.json there.", model_dir.string());
    auto const ids = session.tokenizer()->encode_beginning(text);
    FSLLM_CHECK(ids.size() > 1, "--text is {} token (the first one is only context). Give a longer one.",
                ids.size());
    auto const targets = std::ssize(ids) - 1;
    FSLLM_CHECK(targets <= session.model().config().max_positions,
                "--text is {} tokens (the model has {} positions). Shorten it.", ids.size(),
                session.model().config().max_positions);
    auto const score = score_rows(session.model(), {{ids, targets}}, targets).front();
    losses[name] = -score.loglikelihood / static_cast<double>(targets);
  };
  add("model alone");
  for (size_t i = 0; i < adapters.size(); ++i) {
    session.add(adapters[i]);
    add(i == 0 ? "a" : "b");
  }
  return losses;
}

}  // namespace fsllm

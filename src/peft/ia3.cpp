// SPDX-License-Identifier: Apache-2.0
// IA³ (Liu et al. 2022, section 3.3): learned vectors scale keys, values and what goes into the MLP's last
// projection.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "methods.hpp"
#include "random.hpp"

namespace fsllm::detail {
namespace {

struct Ia3Options {
  Targets targets, feedforward;  ///< empty: PEFT's of the family
  bool saved = false;            ///< both are a saved adapter's, in full
};

/// l ⊙ (W x + b), or W (l ⊙ x) + b in a feedforward module.
struct Ia3Adapter final : LinearAdapter {
  at::Tensor scale;  ///< [out, 1], or [1, in] in a feedforward module; fp32, requires_grad
  bool feedforward = false;

  at::Tensor input(at::Tensor const& x, Pass const&) override { return feedforward ? scaled(x) : x; }
  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, Pass const&) override {
    return feedforward ? y : scaled(y);
  }

 private:
  at::Tensor scaled(at::Tensor const& x) const { return x.mul(scale.flatten().to(x.scalar_type())); }
};

class Ia3 final : public Peft {
 public:
  Ia3(PeftConfig const& config, CausalLM& model) : options_(options_of<Ia3Options>(config)) {
    auto const& family = model.config();
    bool const fill_in = options_.feedforward.empty() && !options_.saved;
    if (fill_in) options_.feedforward = {family.ia3_feedforward, ""};
    options_.targets = resolve_targets(options_.targets, family.ia3_targets, model);
    for (auto const* linear : find_targets(options_.targets, model, {"target_modules", config.init_from}))
      add_site(*linear);
    if (fill_in)
      std::erase_if(options_.feedforward.names, [&](auto const& name) { return !names_site({{name}, ""}); });
    else if (!options_.saved)
      check_feedforward();
    fan_in_fan_out_ = family.conv1d;
  }

  void attach(CausalLM& model) override {
    for (auto const& site : sites_) module_of(model, site.module).adapter = site.adapter;
  }
  void detach(CausalLM& model) override {
    for (auto const& site : sites_) module_of(model, site.module).adapter.reset();
  }

  TensorMap state() const override {
    TensorMap state;
    for (auto const& site : sites_) state.emplace(kPeftPrefix + site.module + ".ia3_l", site.adapter->scale);
    return state;
  }

  void initialize(uint64_t) override {
    at::NoGradGuard const no_grad;
    for (auto const& site : sites_) site.adapter->scale.fill_(1);
  }

  void merge_into(CausalLM& model) override {
    at::NoGradGuard const no_grad;
    for (auto const& site : sites_) {
      auto& linear = module_of(model, site.module);
      auto const& scale = site.adapter->scale;
      auto const merged = linear.matrix().to(at::kFloat).mul(scale);
      if (linear.bias.defined() && !site.adapter->feedforward)
        linear.bias = linear.bias.to(at::kFloat).mul(scale.flatten()).to(linear.bias.scalar_type());
      linear.set_weight(linear.conv1d ? merged.t() : merged);
      linear.adapter.reset();
    }
  }

  nlohmann::ordered_json adapter_config(std::string const&) const override {
    return {{"peft_type", "IA3"},
            {"task_type", "CAUSAL_LM"},
            {"inference_mode", true},
            {"target_modules", json_of(written_targets())},
            {"feedforward_modules", json_of(options_.feedforward)},
            {"fan_in_fan_out", fan_in_fan_out_},
            {"init_ia3_weights", true},
            {"modules_to_save", nullptr}};
  }

 private:
  struct Site {
    std::string module;
    std::shared_ptr<Ia3Adapter> adapter;
  };

  void add_site(Linear const& linear) {
    auto adapter = std::make_shared<Ia3Adapter>();
    adapter->feedforward = matches(options_.feedforward, linear.name, "feedforward_modules");
    adapter->scale = adapter->feedforward ? trainable({1, linear.in_features()}, linear.device())
                                          : trainable({linear.out_features(), 1}, linear.device());
    sites_.push_back({linear.name, adapter});
  }

  bool names_site(Targets const& targets) const {
    return std::any_of(sites_.begin(), sites_.end(), [&](Site const& site) {
      return matches(targets, site.module, "feedforward_modules");
    });
  }

  void check_feedforward() const {
    std::vector<Targets> parts = {options_.feedforward};
    if (options_.feedforward.pattern.empty()) {
      parts.clear();
      for (auto const& name : options_.feedforward.names) parts.push_back({{name}, ""});
    }
    for (auto const& part : parts)
      FSLLM_CHECK(
          names_site(part),
          "{}.feedforward_modules names '{}' (none of target_modules). Add it there, or leave it out.", kArgs,
          part.pattern.empty() ? part.names.front() : part.pattern);
  }

  /// PEFT wants every name of feedforward_modules among those of target_modules too.
  Targets written_targets() const {
    auto targets = options_.targets;
    if (targets.pattern.empty())
      for (auto const& name : options_.feedforward.names)
        if (std::find(targets.names.begin(), targets.names.end(), name) == targets.names.end())
          targets.names.push_back(name);
    return targets;
  }

  Ia3Options options_;
  bool fan_in_fan_out_ = false;
  std::vector<Site> sites_;  ///< in layer order
};

}  // namespace

std::any read_ia3(Arguments& arguments, PeftConfig&) {
  Ia3Options ia3;
  ia3.saved = arguments.saved();
  ia3.targets = read_target_modules(arguments);
  ia3.feedforward = arguments.targets(
      "feedforward_modules",
      "Those of target_modules whose input IA³ scales, not their output; [] takes PEFT's for the family.");
  arguments.only("init_ia3_weights", true, "IA³ starts from ones.");
  return ia3;
}

std::unique_ptr<Peft> make_ia3(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Ia3>(config, model);
}

}  // namespace fsllm::detail

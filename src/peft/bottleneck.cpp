// SPDX-License-Identifier: Apache-2.0
// Bottleneck adapters: x + W_up σ(W_down x + b_down) + b_up behind each sublayer (Houlsby et al. 2019, figure
// 2) or behind each block (Pfeiffer et al. 2021, section 3.1), as the library adapters places them in
// decoders.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/model/dropout.hpp"
#include "methods.hpp"
#include "random.hpp"

namespace fsllm::detail {
namespace {

struct BottleneckOptions {
  std::string architecture = "houlsby", non_linearity = "auto";
  int64_t reduction_factor = 16;
  double dropout = 0;
};

/// One adapter, behind a Linear or a block.
struct Bottleneck final : LinearAdapter, BlockAdapter {
  std::string module;         ///< path of what it stands behind
  at::Tensor down_w, down_b;  ///< [size, hidden], [size]; fp32, requires_grad
  at::Tensor up_w, up_b;      ///< [hidden, size], [hidden]
  bool swish = true;
  double dropout = 0;

  at::Tensor apply(at::Tensor const& x, ForwardContext& context) override {
    auto const type = x.scalar_type();
    auto const down = at::addmm(down_b.to(type), x, down_w.to(type).t());
    auto const up = at::addmm(up_b.to(type), swish ? at::silu(down) : at::relu(down), up_w.to(type).t());
    return x.add(dropped(up, dropout, context, module));
  }
  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, ForwardContext& context) override {
    return apply(y, context);
  }
};

/// "model.layers.3" of "model.layers.3.mlp.down_proj".
std::string block_path(std::string const& module) {
  auto const digits = module.find_first_of("0123456789");
  return module.substr(0, module.find('.', digits));
}

class Bottlenecks final : public Peft {
 public:
  Bottlenecks(PeftConfig const& config, CausalLM& model) : options_(options_of<BottleneckOptions>(config)) {
    houlsby_ = options_.architecture == "houlsby";
    if (options_.non_linearity == "auto") options_.non_linearity = houlsby_ ? "swish" : "relu";
    for (auto const* linear : model.linears()) {
      if (!linear->ends_sublayer) continue;
      auto const path = houlsby_ ? linear->name : block_path(linear->name);
      if (sites_.empty() || sites_.back()->module != path)
        add_site(path, model.config().hidden_size, linear->device());
    }
  }

  void attach(CausalLM& model) override {
    for (size_t i = 0; i < sites_.size(); ++i) put(model, i, sites_[i]);
  }
  void detach(CausalLM& model) override {
    for (size_t i = 0; i < sites_.size(); ++i) put(model, i, nullptr);
  }

  TensorMap state() const override {
    TensorMap state;
    for (auto const& site : sites_) {
      auto const path = "base_model.model." + site->module;
      state.emplace(path + ".adapter_down.weight", site->down_w);
      state.emplace(path + ".adapter_down.bias", site->down_b);
      state.emplace(path + ".adapter_up.weight", site->up_w);
      state.emplace(path + ".adapter_up.bias", site->up_b);
    }
    return state;
  }

  /// BERT's initial values, the default of the library adapters: N(0, 0.02²), biases 0.
  void initialize(uint64_t seed) override {
    at::NoGradGuard const no_grad;
    for (size_t i = 0; i < sites_.size(); ++i) {
      auto const& site = *sites_[i];
      fill_normal(site.down_w, 0.02, Philox(seed, Purpose::adapter_init, 0, 0, 2 * i));
      fill_normal(site.up_w, 0.02, Philox(seed, Purpose::adapter_init, 0, 0, 2 * i + 1));
      site.down_b.zero_();
      site.up_b.zero_();
    }
  }

  void merge_into(CausalLM&) override {
    fail(
        "the adapter cannot be merged (a bottleneck is not linear, no weights can hold it). Use it as an "
        "adapter.");
  }

  nlohmann::ordered_json adapter_config(std::string const&) const override {
    return {{"peft_type", "BOTTLENECK"},
            {"task_type", "CAUSAL_LM"},
            {"inference_mode", true},
            {"architecture", options_.architecture},
            {"reduction_factor", options_.reduction_factor},
            {"non_linearity", options_.non_linearity},
            {"adapter_dropout", options_.dropout},
            {"modules_to_save", nullptr}};
  }

 private:
  void add_site(std::string const& path, int64_t hidden, at::Device device) {
    auto const size = std::max<int64_t>(1, hidden / options_.reduction_factor);
    auto site = std::make_shared<Bottleneck>();
    site->module = path;
    site->down_w = trainable({size, hidden}, device);
    site->down_b = trainable({size}, device);
    site->up_w = trainable({hidden, size}, device);
    site->up_b = trainable({hidden}, device);
    site->swish = options_.non_linearity == "swish";
    site->dropout = options_.dropout;
    sites_.push_back(std::move(site));
  }

  void put(CausalLM& model, size_t index, std::shared_ptr<Bottleneck> const& site) const {
    if (houlsby_)
      module_of(model, sites_[index]->module).adapter = site;
    else
      model.set_block_adapter(static_cast<int64_t>(index), site);
  }

  BottleneckOptions options_;
  bool houlsby_ = true;
  std::vector<std::shared_ptr<Bottleneck>> sites_;  ///< in layer order
};

}  // namespace

std::any read_bottleneck(Arguments& arguments, PeftConfig&) {
  BottleneckOptions options;
  options.architecture =
      arguments.get("architecture", options.architecture,
                    "Where bottlenecks stand: behind attention and MLP (houlsby), or behind "
                    "each block (pfeiffer).",
                    one_of({"houlsby", "pfeiffer"}));
  options.reduction_factor =
      arguments.get("reduction_factor", options.reduction_factor,
                    "A bottleneck is the hidden size divided by this wide.", at_least(1));
  options.non_linearity =
      arguments.get("non_linearity", options.non_linearity,
                    "Activation of bottlenecks; auto: swish for houlsby, relu for pfeiffer.",
                    one_of({"auto", "swish", "relu"}));
  options.dropout =
      arguments.get("adapter_dropout", options.dropout,
                    "Probability of dropping an output of a bottleneck in training.", within_open(0, 1));
  return options;
}

std::unique_ptr<Peft> make_bottleneck(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Bottlenecks>(config, model);
}

}  // namespace fsllm::detail

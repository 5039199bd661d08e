// SPDX-License-Identifier: Apache-2.0
// Bottleneck adapters, small networks behind each sublayer (Houlsby et al. 2019, figure 2), behind each block
// (Pfeiffer et al. 2021, section 3.1) or beside each MLP (He et al. 2022), as the library adapters places
// them in decoders.
#include "bottleneck.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/gelu.h>
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

enum class Place { behind_sublayers, behind_blocks, beside_mlps };

/// Where bottlenecks stand, and the defaults of the library adapters for that.
struct Architecture {
  char const* name;
  Place place;
  int64_t reduction_factor;
  char const* non_linearity;
  double scaling;
};

constexpr Architecture kArchitectures[] = {
    {"houlsby", Place::behind_sublayers, 16, "swish", 1},
    {"pfeiffer", Place::behind_blocks, 16, "relu", 1},
    {"parallel", Place::beside_mlps, 2, "relu", 4},
};

struct Activation {
  char const* name;
  at::Tensor (*function)(at::Tensor const&);
};

constexpr Activation kActivations[] = {
    {"swish", [](at::Tensor const& x) { return at::silu(x); }},
    {"relu", [](at::Tensor const& x) { return at::relu(x); }},
    {"gelu", [](at::Tensor const& x) { return at::gelu(x); }},
};

template <class T, size_t kSize>
T const& row_of(T const (&table)[kSize], std::string const& name) {
  for (auto const& row : table)
    if (name == row.name) return row;
  fail_internal(__FILE__, __LINE__, "no row " + name);
}

/// One adapter: what its network makes of x is scaled and added.
struct Bottleneck final : LinearAdapter, BlockAdapter {
  std::string module;  ///< path of what it stands behind, or of its block
  Place place = Place::behind_sublayers;
  SmallNetwork network;
  double scaling = 1, dropout = 0;

  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, Pass const& pass) override {
    return y.add(branch(y, pass));
  }
  at::Tensor apply(at::Tensor const& x, Pass const& pass) override {
    return place == Place::behind_blocks ? x.add(branch(x, pass)) : x;
  }
  at::Tensor parallel_to_mlp(at::Tensor const& x, at::Tensor const& y, Pass const& pass) override {
    return place == Place::beside_mlps ? y.add(branch(x, pass)) : y;
  }

 private:
  at::Tensor branch(at::Tensor const& x, Pass const& pass) const {
    auto const made = network.apply(x);
    return dropped(scaling == 1 ? made : made.mul(scaling), dropout, pass, module + ".adapter_dropout");
  }
};

/// "model.layers.3" of "model.layers.3.mlp.down_proj".
std::string block_path(std::string const& module) {
  auto const digits = module.find_first_of("0123456789");
  return module.substr(0, module.find('.', digits));
}

class Bottlenecks final : public Peft {
 public:
  Bottlenecks(PeftConfig const& config, CausalLM& model)
      : options_(options_of<BottleneckOptions>(config)),
        place_(row_of(kArchitectures, options_.architecture).place),
        hidden_(model.config().hidden_size),
        device_(model.device()) {
    if (options_.phm_dim > 0) make_rule();
    add_sites(model);
    if (options_.inverse == "nice") make_coupling();
  }

  void attach(CausalLM& model) override {
    for (size_t i = 0; i < sites_.size(); ++i) put(model, i, sites_[i]);
    if (coupling_) model.set_stack_adapter(coupling_);
  }
  void detach(CausalLM& model) override {
    for (size_t i = 0; i < sites_.size(); ++i) put(model, i, nullptr);
    if (coupling_) model.set_stack_adapter(nullptr);
  }

  TensorMap state() const override {
    TensorMap state;
    for (auto const& site : sites_) site->network.add_to(state, kPeftPrefix + site->module);
    if (rule_.defined()) state.emplace(kPeftPrefix + "phm_rule", rule_);
    if (coupling_) {
      coupling_->f.add_to(state, kPeftPrefix + "inv_adapter.F");
      coupling_->g.add_to(state, kPeftPrefix + "inv_adapter.G");
    }
    return state;
  }

  void initialize(uint64_t seed) override {
    at::NoGradGuard const no_grad;
    uint64_t stream = 0;
    auto const next = [&] { return Philox(seed, Purpose::adapter_init, 0, 0, stream++); };
    auto const start = [&](SmallNetwork const& network, Start down, Start up) {
      network.down.initialize(down, next);
      network.up.initialize(up, next);
    };
    bool const beside = place_ == Place::beside_mlps;
    for (auto const& site : sites_)
      start(site->network, beside ? Start::kaiming : Start::bert, beside ? Start::zero : Start::bert);
    if (rule_.defined()) fill_normal(rule_, 1e-4, next());
    if (coupling_)
      for (auto const* network : {&coupling_->f, &coupling_->g}) start(*network, Start::bert, Start::bert);
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
            {"mlp_reduction_factor", options_.mlp_reduction_factor},
            {"non_linearity", options_.non_linearity},
            {"scaling", options_.scaling},
            {"adapter_dropout", options_.dropout},
            {"phm_dim", options_.phm_dim},
            {"inv_adapter", options_.inverse},
            {"inv_adapter_reduction_factor", options_.inverse_reduction_factor},
            {"modules_to_save", nullptr}};
  }

 private:
  SmallNetwork network(int64_t in, int64_t inner, int64_t out, at::Tensor const& rule) const {
    return {Projection::make(in, inner, rule, device_), Projection::make(inner, out, rule, device_),
            row_of(kActivations, options_.non_linearity).function};
  }

  void make_rule() {
    int64_t const n = options_.phm_dim;
    FSLLM_CHECK(hidden_ % n == 0, "{}.phm_dim = {} (no divisor of the model's hidden size {}). Use one.",
                kArgs, n, hidden_);
    rule_ = trainable({n, n, n}, device_);
  }

  void make_coupling() {
    int64_t const first = hidden_ / 2, second = hidden_ - first, factor = options_.inverse_reduction_factor;
    coupling_ = std::make_shared<Coupling>();
    coupling_->f = network(second, std::max<int64_t>(1, second / factor), first, {});
    coupling_->g = network(first, std::max<int64_t>(1, first / factor), second, {});
  }

  void add_sites(CausalLM& model) {
    FSLLM_CHECK(options_.mlp_reduction_factor == 0 || place_ == Place::behind_sublayers,
                "{}.mlp_reduction_factor = {} (architecture: {} has one bottleneck a block). Set "
                "reduction_factor alone.",
                kArgs, options_.mlp_reduction_factor, options_.architecture);
    std::string last_block;
    for (auto const* linear : model.linears()) {
      if (!linear->ends_sublayer) continue;
      auto const block = block_path(linear->name);
      bool const mlp = block == last_block;  // attention comes first
      last_block = block;
      if (place_ == Place::behind_sublayers)
        add_site(linear->name, mlp && options_.mlp_reduction_factor > 0 ? options_.mlp_reduction_factor
                                                                        : options_.reduction_factor);
      else if (mlp)
        add_site(block, options_.reduction_factor);
    }
  }

  void add_site(std::string const& path, int64_t factor) {
    auto size = std::max<int64_t>(1, hidden_ / factor);
    if (auto const n = options_.phm_dim; n > 0) size = std::max(n, size - size % n);
    auto site = std::make_shared<Bottleneck>();
    site->module = path;
    site->place = place_;
    site->network = network(hidden_, size, hidden_, rule_);
    site->scaling = options_.scaling;
    site->dropout = options_.dropout;
    sites_.push_back(std::move(site));
  }

  void put(CausalLM& model, size_t index, std::shared_ptr<Bottleneck> const& site) const {
    if (place_ == Place::behind_sublayers)
      module_of(model, sites_[index]->module).adapter = site;
    else
      model.set_block_adapter(static_cast<int64_t>(index), site);
  }

  BottleneckOptions options_;
  Place place_;
  int64_t hidden_;
  at::Device device_;
  std::vector<std::shared_ptr<Bottleneck>> sites_;  ///< in layer order
  at::Tensor rule_;
  std::shared_ptr<Coupling> coupling_;
};

void read_sizes(Arguments& arguments, BottleneckOptions& options, Architecture const& architecture) {
  options.reduction_factor =
      arguments.get("reduction_factor", architecture.reduction_factor,
                    "A bottleneck is the hidden size divided by this wide; 2 where parallel (mam too), 32 in "
                    "compacter, unless given.",
                    at_least(1));
  options.mlp_reduction_factor =
      arguments.get("mlp_reduction_factor", options.mlp_reduction_factor,
                    "The same for bottlenecks behind MLPs (houlsby); 0: as behind attention.", at_least(0));
  options.phm_dim = arguments.get(
      "phm_dim", options.phm_dim,
      "Kronecker products that make up a matrix of a bottleneck, whose size is rounded down to a "
      "multiple (4 in compacter, unless given); 0: plain matrices.",
      at_least(0));
}

void read_inverse(Arguments& arguments, BottleneckOptions& options) {
  options.inverse =
      arguments.get("inv_adapter", options.inverse,
                    "An invertible network behind the embeddings and its inverse before the head "
                    "(nice: additive couplings, MAD-X), beside bottlenecks.",
                    one_of({"none", "nice"}));
  options.inverse_reduction_factor = arguments.get(
      "inv_adapter_reduction_factor", options.inverse_reduction_factor,
      "The networks of inv_adapter are half the hidden size divided by this wide.", at_least(1));
}

}  // namespace

std::any read_bottleneck(Arguments& arguments, PeftConfig&) {
  BottleneckOptions options;
  options.architecture = arguments.get(
      "architecture", options.architecture,
      "Where bottlenecks stand: behind attention and MLP (houlsby), behind each block (pfeiffer), "
      "or beside each MLP (parallel, mam's; their input is not normed, so learning rates must be small).",
      one_of({"houlsby", "pfeiffer", "parallel"}));
  auto const& architecture = row_of(kArchitectures, options.architecture);
  read_sizes(arguments, options, architecture);
  options.non_linearity = arguments.get("non_linearity", "auto",
                                        "Activation of bottlenecks; auto: swish for houlsby, relu for the "
                                        "others (gelu in compacter, unless given).",
                                        one_of({"auto", "swish", "relu", "gelu"}));
  if (options.non_linearity == "auto") options.non_linearity = architecture.non_linearity;
  options.scaling = arguments.get(
      "scaling", architecture.scaling,
      "What a bottleneck adds is multiplied by this; 4 where parallel, unless given.", more_than(0));
  options.dropout =
      arguments.get("adapter_dropout", options.dropout,
                    "Probability of dropping an output of a bottleneck in training.", within_open(0, 1));
  read_inverse(arguments, options);
  return options;
}

std::unique_ptr<Peft> make_bottleneck(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Bottlenecks>(config, model);
}

}  // namespace fsllm::detail

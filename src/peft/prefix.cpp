// SPDX-License-Identifier: Apache-2.0
// Prefix tuning (Li & Liang 2021): every layer sees learned keys and values before its own.
#include <ATen/ops/tanh.h>

#include "fsllm/core/error.hpp"
#include "methods.hpp"
#include "prompt_learning.hpp"

namespace fsllm::detail {
namespace {

constexpr char const* kFlat = "prompt_embeddings";

struct PrefixOptions {
  int64_t tokens = 20, encoder_size = 0;
  bool projection = false;
};

/// Learns the keys and values, or with a projection token embeddings and a two-layer network that makes them.
class Prefix final : public PromptEncoder {
 public:
  Prefix(PrefixOptions const& options, CausalLM const& model)
      : PromptEncoder("PREFIX_TUNING", options.tokens, model),
        options_(options),
        heads_(model.config().num_kv_heads),
        head_dim_(model.config().head_dim),
        parts_(2 * model.config().num_layers) {
    int64_t const width = heads_ * head_dim_;
    if (options_.encoder_size == 0) options_.encoder_size = width;
    if (!options_.projection) {
      add(kFlat, {count(), parts_ * width});
      return;
    }
    add(kPromptEncoder + "embedding.weight", {count(), width});
    add_linear(kPromptEncoder + "transform.0", width, options_.encoder_size);
    add_linear(kPromptEncoder + "transform.2", options_.encoder_size, parts_ * width);
  }

  at::Tensor prompt(TensorMap const& parameters, Pass const&) const override {
    auto const flat = options_.projection ? project(parameters) : parameters.at(kFlat);
    return flat.view({count(), parts_, heads_, head_dim_});
  }

  void initialize(uint64_t seed) const override { draw(seed); }

  void describe(nlohmann::ordered_json& json, std::string const&) const override {
    json["token_dim"] =
        heads_ * head_dim_;  // PEFT's numbers of key heads, where they differ from the query's
    json["num_attention_heads"] = heads_;
    json["encoder_hidden_size"] = options_.encoder_size;
    json["prefix_projection"] = options_.projection;
  }

 private:
  at::Tensor project(TensorMap const& parameters) const {
    auto const inner = linear(parameters, kPromptEncoder + "transform.0",
                              parameters.at(kPromptEncoder + "embedding.weight"));
    return linear(parameters, kPromptEncoder + "transform.2", at::tanh(inner));
  }

  PrefixOptions options_;
  int64_t heads_, head_dim_, parts_;
};

}  // namespace

std::any read_prefix(Arguments& arguments, PeftConfig& shared) {
  PrefixOptions prefix;
  prefix.tokens = read_virtual_tokens(arguments, shared);
  char const* const doc =
      "Make the prefix by a two-layer network from token embeddings (mam does, unless False). Adapters are "
      "saved without it: what goes on from one trains the keys and values themselves.";
  arguments.forget_saved("prefix_projection");
  prefix.projection = arguments.get("prefix_projection", false, doc);
  FSLLM_CHECK(!prefix.projection || !arguments.saved(),
              "{} = True (the adapter of llm.adapter.init_from holds the keys and values that a projection "
              "made, not the projection). Remove it to train the keys and values.",
              arguments.where("prefix_projection"));
  prefix.encoder_size = read_encoder_size(arguments);
  return prefix;
}

std::unique_ptr<Peft> make_prefix(PeftConfig const& config, CausalLM& model) {
  auto const prefix = std::make_shared<Prefix>(options_of<PrefixOptions>(config), model);
  return std::make_unique<PromptLearning>(prefix, model.config());
}

}  // namespace fsllm::detail

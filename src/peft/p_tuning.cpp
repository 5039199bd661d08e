// SPDX-License-Identifier: Apache-2.0
// P-tuning (Liu et al. 2021): an encoder makes the embeddings of virtual tokens; it is what learns.
#include <ATen/ops/cat.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "fsllm/model/dropout.hpp"
#include "methods.hpp"
#include "prompt_learning.hpp"

namespace fsllm::detail {
namespace {

std::string const kEmbedding = kPromptEncoder + "embedding.weight";

struct PTuningOptions {
  int64_t tokens = 20, encoder_size = 0, layers = 2;
  std::string type = "MLP";
  double dropout = 0;
};

/// PEFT's PromptEncoder: embeddings [V, hidden] → three linear layers, or a two-way LSTM and two linear
/// layers.
class PTuning final : public PromptEncoder {
 public:
  PTuning(PTuningOptions const& options, CausalLM const& model)
      : PromptEncoder("P_TUNING", options.tokens, model), options_(options) {
    int64_t const hidden = model.config().hidden_size;
    if (options_.encoder_size == 0) options_.encoder_size = hidden;
    int64_t const size = options_.encoder_size;
    add(kEmbedding, {count(), hidden});
    if (options_.type == "LSTM") {
      for (int64_t layer = 0; layer < options_.layers; ++layer)
        add_lstm(layer, layer == 0 ? hidden : 2 * size);
      add_linear(kPromptEncoder + "mlp_head.0", 2 * size, 2 * size);
      add_linear(kPromptEncoder + "mlp_head.2", 2 * size, hidden);
    } else {
      add_linear(kPromptEncoder + "mlp_head.0", hidden, size);
      add_linear(kPromptEncoder + "mlp_head.2", size, size);
      add_linear(kPromptEncoder + "mlp_head.4", size, hidden);
    }
  }

  at::Tensor prompt(TensorMap const& p, Pass const& tokens) const override {
    bool const lstm = options_.type == "LSTM";
    auto x = lstm ? run_lstm(p, tokens) : p.at(kEmbedding);
    x = at::relu(linear(p, kPromptEncoder + "mlp_head.0", x));
    x = linear(p, kPromptEncoder + "mlp_head.2", x);
    return lstm ? x : linear(p, kPromptEncoder + "mlp_head.4", at::relu(x));
  }

  void initialize(uint64_t seed) const override { draw(seed); }

  void describe(nlohmann::ordered_json& json, std::string const&) const override {
    json["encoder_reparameterization_type"] = options_.type;
    json["encoder_hidden_size"] = options_.encoder_size;
    json["encoder_num_layers"] = options_.layers;
    json["encoder_dropout"] = options_.dropout;
  }

 private:
  static std::vector<std::string> lstm_names(int64_t layer) {
    std::vector<std::string> names;
    for (auto const* way : {"", "_reverse"})
      for (auto const* part : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
        names.push_back(fmt::format("{}lstm_head.{}_l{}{}", kPromptEncoder, part, layer, way));
    return names;
  }

  /// torch.nn.LSTM's tensors of one layer, both ways: four gates of `encoder_size` units.
  void add_lstm(int64_t layer, int64_t in) {
    int64_t const size = options_.encoder_size, gates = 4 * size;
    std::vector<std::vector<int64_t>> const shapes = {{gates, in}, {gates, size}, {gates}, {gates}};
    auto const names = lstm_names(layer);
    for (size_t i = 0; i < names.size(); ++i)
      add_uniform(names[i], shapes[i % 4], 1 / std::sqrt(static_cast<double>(size)));
  }

  /// Layer by layer, so that dropout between them is ours.
  at::Tensor run_lstm(TensorMap const& p, Pass const& tokens) const {
    auto x = p.at(kEmbedding).unsqueeze(0);
    auto const start = at::zeros({2, 1, options_.encoder_size}, x.options());
    for (int64_t layer = 0; layer < options_.layers; ++layer) {
      if (layer > 0)
        x = dropped(x, options_.dropout, tokens,
                    fmt::format("{}lstm_head.dropout_l{}", kPromptEncoder, layer));
      std::vector<at::Tensor> weights;
      for (auto const& name : lstm_names(layer)) weights.push_back(p.at(name));
      x = std::get<0>(at::lstm(x, {start, start}, weights, /*has_biases=*/true, /*num_layers=*/1,
                               /*dropout=*/0.0, /*train=*/false, /*bidirectional=*/true,
                               /*batch_first=*/true));
    }
    return x.squeeze(0);
  }

  PTuningOptions options_;
};

}  // namespace

std::any read_p_tuning(Arguments& arguments, PeftConfig& shared) {
  PTuningOptions encoder;
  encoder.tokens = read_virtual_tokens(arguments, shared);
  encoder.type = arguments.get("encoder_reparameterization_type", encoder.type,
                               "Encoder of P-tuning: three linear layers, or a two-way LSTM and two of them.",
                               one_of({"MLP", "LSTM"}));
  encoder.encoder_size = read_encoder_size(arguments);
  encoder.layers =
      arguments.get("encoder_num_layers", encoder.layers,
                    "Layers of the LSTM (the MLP always has its three, as in PEFT).", at_least(1));
  encoder.dropout = arguments.get(
      "encoder_dropout", encoder.dropout,
      "Probability of dropout between layers of the LSTM (none in the MLP, as in PEFT).", within_open(0, 1));
  return encoder;
}

std::unique_ptr<Peft> make_p_tuning(PeftConfig const& config, CausalLM& model) {
  auto const encoder = std::make_shared<PTuning>(options_of<PTuningOptions>(config), model);
  return std::make_unique<PromptLearning>(encoder, model.config());
}

}  // namespace fsllm::detail

// SPDX-License-Identifier: Apache-2.0
// BitFit (Ben Zaken et al. 2022): the model's biases learn, nothing else.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "biases.hpp"
#include "fsllm/core/error.hpp"
#include "methods.hpp"

namespace fsllm::detail {
namespace {

/// PEFT has no BitFit. Its files hold a LoRA with `bias: all` whose one update is zero, which PEFT loads.
class BitFit final : public Peft {
 public:
  explicit BitFit(CausalLM& model) : biases_(model, [](std::string const&) { return true; }) {
    FSLLM_CHECK(
        !biases_.empty(),
        "{}.adapter_method = 'bitfit' (this {} model has no biases to train). Take another method, lora "
        "for instance.",
        kArgs, model.config().family);
    auto const& linear = *model.linears().front();
    zero_module_ = linear.name;
    in_features_ = linear.in_features();
    out_features_ = linear.out_features();
    conv1d_ = linear.conv1d;
  }

  void attach(CausalLM& model) override { biases_.attach(model); }
  void detach(CausalLM& model) override { biases_.detach(model); }

  TensorMap state() const override {
    TensorMap state;
    for (auto const& [module, bias] : biases_.by_module())
      state.emplace(kPeftPrefix + module + (module == zero_module_ ? ".base_layer.bias" : ".bias"), bias);
    return state;
  }

  void initialize(uint64_t) override { biases_.initialize(); }
  void merge_into(CausalLM& model) override {
    at::NoGradGuard const no_grad;
    biases_.merge_into(model);
  }

  TensorMap file_tensors(TensorMap const& values) const override {
    auto tensors = values;
    tensors.emplace(kPeftPrefix + zero_module_ + ".lora_A.weight", at::zeros({1, in_features_}));
    tensors.emplace(kPeftPrefix + zero_module_ + ".lora_B.weight", at::zeros({out_features_, 1}));
    return tensors;
  }

  nlohmann::ordered_json adapter_config(std::string const&) const override {
    return {{"peft_type", "LORA"},
            {"task_type", "CAUSAL_LM"},
            {"inference_mode", true},
            {"r", 1},
            {"lora_alpha", 1},
            {"lora_dropout", 0.0},
            {"target_modules", {zero_module_}},
            {"bias", "all"},
            {"fan_in_fan_out", conv1d_},
            {"modules_to_save", nullptr}};
  }

 private:
  TrainedBiases biases_;
  std::string zero_module_;
  int64_t in_features_ = 0, out_features_ = 0;
  bool conv1d_ = false;
};

}  // namespace

std::any read_bitfit(Arguments&, PeftConfig&) {
  return {};
}

std::unique_ptr<Peft> make_bitfit(PeftConfig const&, CausalLM& model) {
  return std::make_unique<BitFit>(model);
}

}  // namespace fsllm::detail

// SPDX-License-Identifier: Apache-2.0
// export_for_peft OUT_DIR: for every reference model a random adapter, the logits with it, and the merged
// model; the same again for the model with three more tokens ("grown", and of llama with virtual tokens), and
// an adapter of every other method that PEFT loads.
#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "fsllm/core/rng.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/peft/peft.hpp"
#include "peft_fixture.hpp"

namespace {

using namespace fsllm;

void randomize(TensorMap const& state) {
  at::NoGradGuard const no_grad;
  uint64_t index = 0;
  for (auto const& [name, tensor] : state) {
    Philox random(7, Purpose::test, 0, 0, index++);
    auto* values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = static_cast<float>(0.1 * random.normal());
  }
}

void export_one(std::string const& name, std::filesystem::path const& out) {
  auto const reference = test::load_reference(name);
  auto const model = load_model(reference.dir);
  std::string args = "adapter_method: lora, r: 4, lora_alpha: 6";
  if (name == "llama3") args += ", use_rslora: True";
  if (name == "mistral" || name == "phi3") args += ", target_modules: all-linear";
  if (name == "gpt2") args += ", target_modules: [c_attn, c_proj, c_fc]";
  auto const config = test::peft_of(args);
  auto const peft = make_peft(config, *model, 3);
  randomize(peft->state());
  save_adapter(out / "adapter", *peft, peft->state(), reference.dir.string());
  write_safetensors(out / "logits.safetensors", {{"logits", test::all_logits(*model, reference.rows)}});
  peft->merge_into(*model);
  save_model(out / "merged", *model, reference.dir, "fp32");
}

/// A method on a model: what names its folder, and its arguments.
struct MethodCase {
  char const *model, *name, *args;
};

constexpr char const* kDora = "lora, r: 4, use_dora: True";
constexpr char const* kProjection =
    "prefix, num_virtual_tokens: 3, prefix_projection: True, encoder_hidden_size: 6";
constexpr char const* kMlp = "p-tuning, num_virtual_tokens: 3, encoder_hidden_size: 6";
constexpr char const* kLstm =
    "p-tuning, num_virtual_tokens: 3, encoder_hidden_size: 6, encoder_reparameterization_type: LSTM";
constexpr MethodCase kMethods[] = {
    {"llama", "dora", kDora},
    {"llama", "head", "lora, r: 4, target_modules: [embed_tokens, lm_head]"},
    {"gpt2", "head", "lora, r: 4, target_modules: [wte, lm_head, c_attn]"},
    {"llama", "prompt", "prompt, num_virtual_tokens: 3"},
    {"llama", "prefix", "prefix, num_virtual_tokens: 3"},
    {"llama", "prefix_projection", kProjection},
    {"llama", "p_tuning_mlp", kMlp},
    {"llama", "p_tuning_lstm", kLstm},
    {"llama", "ia3", "ia3"},
    {"llama", "ia3_all",
     "ia3, target_modules: all-linear, feedforward_modules: [down_proj, self_attn.o_proj]"},
    {"qwen2", "bitfit", "bitfit"},
    {"gpt2", "dora", kDora},
    {"gpt2", "prompt", "prompt, num_virtual_tokens: 3"},
    {"gpt2", "prefix", "prefix, num_virtual_tokens: 3"},
    {"gpt2", "prefix_projection", kProjection},
    {"gpt2", "p_tuning_mlp", kMlp},
    {"gpt2", "p_tuning_lstm", kLstm},
    {"gpt2", "ia3", "ia3"},
    {"gpt2", "ia3_all", "ia3, target_modules: all-linear"},
    {"gpt2", "bitfit", "bitfit"},
};

void export_method(MethodCase const& one, std::filesystem::path const& out) {
  auto const reference = test::load_reference(one.model);
  auto const model = load_model(reference.dir);
  auto const peft = make_peft(test::peft_of(std::string("adapter_method: ") + one.args), *model, 3);
  randomize(peft->state());
  save_adapter(out / "adapter", *peft, peft->state(), reference.dir.string());
  write_safetensors(out / "logits.safetensors", {{"logits", test::all_logits(*model, reference.rows)}});
}

void export_grown(std::string const& name, std::string const& args, std::filesystem::path const& out) {
  auto const reference = test::load_reference(name);
  auto const model = load_model(reference.dir);
  int64_t const size = model->config().vocab_size + 3;
  model->set_vocabulary(grown_vocabulary(model->vocabulary(), size));
  auto const peft = make_peft(test::peft_of(args), *model, 3);
  randomize(peft->state());
  save_adapter(out / "adapter", *peft, peft->state(), reference.dir.string(), model->vocabulary());
  auto rows = reference.rows;
  for (auto& row : rows) row.back() = size - 2;
  write_safetensors(out / "logits.safetensors", {{"logits", test::all_logits(*model, rows)}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: export_for_peft OUT_DIR\n");
    return 2;
  }
  std::filesystem::path const out = argv[1];
  for (auto const& name : test::reference_names()) {
    export_one(name, out / name);
    export_grown(name, "adapter_method: lora, r: 4, lora_alpha: 6, target_modules: all-linear",
                 out / name / "grown");
  }
  export_grown("llama", "adapter_method: prompt, num_virtual_tokens: 3", out / "llama" / "grown_prompt");
  export_grown("llama", "adapter_method: prefix, num_virtual_tokens: 3", out / "llama" / "grown_prefix");
  for (auto const& one : kMethods) export_method(one, out / one.model / (std::string("method_") + one.name));
  return 0;
}

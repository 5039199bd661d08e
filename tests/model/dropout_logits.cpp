// SPDX-License-Identifier: Apache-2.0
// dropout_logits OUT_DIR: models of tests/reference with dropout in their config.json, the logits of their
// first row in training, and the masks of all sites in the order in which a forward pass comes to them.
// check_dropout.py gives transformers these masks and compares.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <fmt/core.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/dropout.hpp"

namespace {

using namespace fsllm;

struct Dropouts {
  char const* model;
  nlohmann::json keys;
};

/// "mask.000", "mask.001", ... of a pass of one row.
TensorMap masks_of(CausalLM& model, Pass const& pass) {
  auto const& config = model.config();
  auto const& tokens = pass.tokens();
  TensorMap masks;
  auto const add = [&](DropoutLines const& lines, int64_t width, double probability,
                       std::string const& site) {
    if (probability > 0)
      masks.emplace(fmt::format("mask.{:03}", masks.size()),
                    keep_mask(lines, width, probability, site).to(at::kByte));
  };
  auto weights = tokens;
  weights.head = at::arange(config.num_heads, at::kLong).unsqueeze(1);
  add(tokens, config.hidden_size, config.embedding_dropout, "the embeddings");
  int64_t ends = 0;
  for (auto const* linear : model.linears()) {
    if (!linear->ends_sublayer) continue;
    if (ends % 2 == 0)  // attention comes first
      add(weights, tokens.place.numel(), config.attention_dropout,
          fmt::format("attention weights of layer {}", ends / 2));
    add(tokens, config.hidden_size, config.residual_dropout, linear->name + ".residual_dropout");
    ++ends;
  }
  return masks;
}

void write_one(Dropouts const& one, std::filesystem::path const& out) {
  auto const reference = test::load_reference(one.model);
  test::copy_model(reference.dir, out);
  auto config = read_json(out / "config.json");
  config.update(one.keys);
  std::ofstream(out / "config.json") << config.dump(1);
  auto const model = load_model(out, {.compute_dtype = "fp64"});
  at::NoGradGuard const no_grad;
  auto const input = test::ragged({reference.rows.front()});
  auto const pass = model->pass(input, test::training(17, 1));
  auto tensors = masks_of(*model, pass);
  tensors.emplace("logits", model->logits(model->hidden_states(input.ids, pass), pass));
  write_safetensors(out / "logits.safetensors", tensors);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: dropout_logits OUT_DIR\n");
    return 2;
  }
  nlohmann::json const gpt = {{"embd_pdrop", 0.1}, {"resid_pdrop", 0.2}, {"attn_pdrop", 0.3}};
  nlohmann::json const hidden = {{"hidden_dropout", 0.2}, {"attention_dropout", 0.3}};
  nlohmann::json const weights = {{"attention_dropout", 0.3}};
  Dropouts const all[] = {
      {"gpt2", gpt},
      {"gptj", gpt},
      {"gpt_neo", {{"embed_dropout", 0.1}, {"resid_dropout", 0.2}, {"attention_dropout", 0.3}}},
      {"gpt_neox", hidden},
      {"gpt_neox_sequential", hidden},
      {"bloom", hidden},
      {"opt", {{"dropout", 0.2}, {"attention_dropout", 0.3}}},
      {"opt_350m", {{"dropout", 0.2}, {"attention_dropout", 0.3}}},
      {"phi3", {{"resid_pdrop", 0.2}, {"attention_dropout", 0.3}}},
      {"llama", weights},
      {"mistral", weights},
      {"qwen2", weights},
      {"qwen3", weights},
      {"gemma", weights},
      {"gemma2", weights},
  };
  for (auto const& one : all) write_one(one, std::filesystem::path(argv[1]) / one.model);
  return 0;
}

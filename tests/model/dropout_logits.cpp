// SPDX-License-Identifier: Apache-2.0
// dropout_logits OUT_DIR: models of tests/reference with dropout in their config.json, and the logits of
// their first row in training under a known seed. check_dropout.py compares them with transformers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"

namespace {

using namespace fsllm;

struct Dropouts {
  char const* model;
  nlohmann::json keys;
};

void write_one(Dropouts const& one, std::filesystem::path const& out) {
  auto const reference = test::load_reference(one.model);
  test::copy_model(reference.dir, out);
  auto config = read_json(out / "config.json");
  config.update(one.keys);
  std::ofstream(out / "config.json") << config.dump(1);
  auto const model = load_model(out, {.compute_dtype = "fp64"});
  at::NoGradGuard const no_grad;
  ForwardContext context{.training = true, .dropout = at::detail::createCPUGenerator(17)};
  auto const hidden = model->hidden_states(test::ragged({reference.rows.front()}), context);
  write_safetensors(out / "logits.safetensors", {{"logits", model->logits(hidden)}});
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

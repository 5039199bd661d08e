// SPDX-License-Identifier: Apache-2.0
// Loss and gradients of a tied head that learns, a chunk of logits at a time, against LibTorch's
// cross-entropy over all logits, in turn; memory above that of the model, in which both have two gradients of
// the vocabulary's size (gradients_mib).
//   head_loss_bench VOCABULARY HIDDEN TOKENS REPEATS   → a line of JSON a repeat
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/core/matmul.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/train/loss.hpp"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// One narrow block; what counts is the head.
void write_model(fs::path const& dir, int64_t vocabulary, int64_t hidden) {
  fs::create_directories(dir);
  std::ofstream(dir / "config.json") << Json{{"architectures", {"LlamaForCausalLM"}},
                                             {"model_type", "llama"},
                                             {"hidden_act", "silu"},
                                             {"hidden_size", hidden},
                                             {"intermediate_size", 64},
                                             {"num_hidden_layers", 1},
                                             {"num_attention_heads", 1},
                                             {"num_key_value_heads", 1},
                                             {"head_dim", 64},
                                             {"rms_norm_eps", 1e-5},
                                             {"max_position_embeddings", 128},
                                             {"rope_theta", 10000.0},
                                             {"tie_word_embeddings", true},
                                             {"vocab_size", vocabulary}};
  auto const matrix = [](int64_t out, int64_t in) { return at::randn({out, in}).mul_(0.02); };
  std::string const block = "model.layers.0.";
  fsllm::write_safetensors(dir / "model.safetensors",
                           {{"model.embed_tokens.weight", matrix(vocabulary, hidden)},
                            {"model.norm.weight", at::ones({hidden})},
                            {block + "input_layernorm.weight", at::ones({hidden})},
                            {block + "post_attention_layernorm.weight", at::ones({hidden})},
                            {block + "self_attn.q_proj.weight", matrix(64, hidden)},
                            {block + "self_attn.k_proj.weight", matrix(64, hidden)},
                            {block + "self_attn.v_proj.weight", matrix(64, hidden)},
                            {block + "self_attn.o_proj.weight", matrix(hidden, 64)},
                            {block + "mlp.gate_proj.weight", matrix(64, hidden)},
                            {block + "mlp.up_proj.weight", matrix(64, hidden)},
                            {block + "mlp.down_proj.weight", matrix(hidden, 64)}});
}

double mib_of(char const* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::atof(line.c_str() + std::string(field).size() + 1) / 1024;
  return 0;
}

/// Seconds, and MiB at the peak above those before, of `work`.
Json measured(std::function<double()> const& work) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  double const before = mib_of("VmRSS");
  auto const start = std::chrono::steady_clock::now();
  double const loss = work();
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {{"seconds", seconds}, {"peak_mib", mib_of("VmHWM") - before}, {"loss", loss}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: head_loss_bench VOCABULARY HIDDEN TOKENS REPEATS\n";
    return 2;
  }
  setenv("MKL_CBWR", "AUTO,STRICT", 0);
  fsllm::use_matmul_kernels();
  at::set_num_threads(1);
  int64_t const vocabulary = std::atoll(argv[1]), hidden = std::atoll(argv[2]), tokens = std::atoll(argv[3]);
  auto const dir = fs::temp_directory_path() / ("head_loss_bench_" + std::to_string(getpid()));
  write_model(dir, vocabulary, hidden);
  auto const model = fsllm::load_model(dir);
  fs::remove_all(dir);
  model->make_trainable("fp32");
  fsllm::Batch batch;
  fsllm::TokenSplit rows;
  for (int64_t row = 0; row * 64 < tokens; ++row) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i <= 64; ++i)
      ids.push_back(static_cast<int32_t>((7919 * (row * 65 + i)) % vocabulary));
    std::vector<uint8_t> target(ids.size(), 1);
    target[0] = 0;
    rows.append(ids, target, -1);
    append_row(batch, rows, row);
  }
  auto const parameters = model->parameters();
  auto const clear = [&] {
    for (auto const& [name, tensor] : parameters) tensor.mutable_grad().reset();
  };
  auto const in_chunks = [&] {
    auto const loss = fsllm::summed_loss(*model, batch);
    loss.backward();
    return loss.item<double>();
  };
  auto const at_once = [&] {
    auto const ids = at::tensor(batch.ids, at::kLong);
    auto const pass = model->pass({ids, batch.offsets});
    auto const seen =
        model->hidden_states(ids, pass).index_select(0, at::tensor(batch.target_positions, at::kLong));
    auto const loss = at::cross_entropy_loss(model->logits(seen), at::tensor(batch.target_ids, at::kLong), {},
                                             at::Reduction::Sum);
    loss.backward();
    return loss.item<double>();
  };
  double const logits = static_cast<double>(batch.num_targets() * vocabulary) * 4 / 1048576;
  for (int64_t repeat = 0; repeat < std::atoll(argv[4]); ++repeat) {
    Json line{{"logits_mib", logits},
              {"gradients_mib", 2.0 * static_cast<double>(vocabulary * hidden) * 4 / 1048576}};
    line["chunks"] = measured(in_chunks);
    clear();
    line["all"] = measured(at_once);
    clear();
    std::cout << line << std::endl;
  }
  return 0;
}

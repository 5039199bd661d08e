// SPDX-License-Identifier: Apache-2.0
// The bound of LoRA training: bare GEMMs of the shapes of one step, forward and input gradient, in a loop.
//   gemm_bench MODEL_DIR TOKENS TARGETS SECONDS [bf16]   → {"tokens_per_second": x, "gflops": y}
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/core/matmul.hpp"
#include "fsllm/model/causal_lm.hpp"

int main(int argc, char** argv) {
  bool const halves = argc == 6 && std::string(argv[5]) == "bf16";
  if (argc != 5 && !halves) {
    std::cerr << "usage: gemm_bench MODEL_DIR TOKENS TARGETS SECONDS [bf16]\n";
    return 2;
  }
  setenv("MKL_CBWR", "AUTO,STRICT", 0);
  fsllm::use_matmul_kernels();
  at::set_num_threads(1);
  c10::InferenceMode const no_grad;
  auto const type = halves ? at::kBFloat16 : at::kFloat;
  auto const model = fsllm::load_model(argv[1]);
  int64_t const tokens = std::atoll(argv[2]), targets = std::atoll(argv[3]);
  double const seconds = std::atof(argv[4]);
  std::vector<std::pair<at::Tensor, int64_t>> products;  // weight [out, in], rows
  for (auto const* linear : model->linears()) products.emplace_back(linear->matrix().to(type), tokens);
  auto const& config = model->config();
  products.emplace_back(at::rand({config.vocab_size, config.hidden_size}).to(type), targets);
  double flops = 0, elapsed = 0;
  int64_t steps = 0;
  auto const start = std::chrono::steady_clock::now();
  while (elapsed < seconds) {
    for (auto const& [weight, rows] : products) {
      auto const x = at::empty({rows, weight.size(1)}, type), g = at::empty({rows, weight.size(0)}, type);
      at::mm(x, weight.t());
      at::mm(g, weight);
      flops += 4.0 * static_cast<double>(rows) * static_cast<double>(weight.numel());
    }
    ++steps;
    elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::cout << nlohmann::json{{"tokens_per_second", static_cast<double>(steps * tokens) / elapsed},
                              {"gflops", flops / elapsed / 1e9}}
            << "\n";
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Greedy generation: seconds of the prompts' pass, and tokens a second of what follows it.
// Run: generate_bench MODEL ROWS PROMPT_TOKENS NEW_TOKENS [STORAGE [COMPUTE]]. Prints one line of JSON.
#include <ATen/Parallel.h>
#include <fmt/core.h>

#include <chrono>
#include <cstdlib>

#include "fsllm/core/error.hpp"
#include "fsllm/core/matmul.hpp"
#include "fsllm/model/running_batch.hpp"

namespace fsllm {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Prompts of different ids and of one length.
std::vector<int32_t> prompt_of(int64_t row, int64_t length, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i)
    ids.push_back(static_cast<int32_t>((row * 7919 + i * 104729 + 17) % vocab));
  return ids;
}

void run(int argc, char** argv) {
  FSLLM_CHECK(argc >= 5, "usage: {} MODEL ROWS PROMPT_TOKENS NEW_TOKENS [STORAGE [COMPUTE]]", argv[0]);
  use_matmul_kernels();
  at::set_num_threads(1);
  int64_t const rows = std::atoll(argv[2]), length = std::atoll(argv[3]), more = std::atoll(argv[4]);
  LoadOptions load{.storage_dtype = argc > 5 ? argv[5] : "auto",
                   .compute_dtype = argc > 6 ? argv[6] : "fp32"};
  load.cache_dir = user_cache_dir();
  auto const model = load_model(argv[1], load);
  double best_prefill = 1e9, best_decode = 1e9;
  for (int repeat = 0; repeat < 4; ++repeat) {  // the first one warms up
    RunningBatch batch(*model, {.most_rows = rows, .most_tokens = rows * length});
    for (int64_t row = 0; row < rows; ++row)
      batch.join({.prompt = prompt_of(row, length, model->config().vocab_size), .max_tokens = more});
    auto start = Clock::now();
    batch.step();
    double const prefill = since(start);
    start = Clock::now();
    while (!batch.idle()) batch.step();
    if (repeat == 0) continue;
    best_prefill = std::min(best_prefill, prefill);
    best_decode = std::min(best_decode, since(start));
  }
  fmt::print(
      R"({{"rows": {}, "prompt": {}, "new": {}, "storage": "{}", "compute": "{}", "prefill_tokens_s": {:.1f}, )"
      R"("decode_tokens_s": {:.1f}}})"
      "\n",
      rows, length, more, load.storage_dtype, load.compute_dtype,
      static_cast<double>(rows * length) / best_prefill,
      static_cast<double>(rows * (more - 1)) / best_decode);
}

}  // namespace
}  // namespace fsllm

int main(int argc, char** argv) {
  try {
    fsllm::run(argc, argv);
  } catch (std::exception const& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}

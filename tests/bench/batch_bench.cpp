// SPDX-License-Identifier: Apache-2.0
// batch_bench SHARD.h5 BATCH_SIZE: microseconds to read a client's shard (a row) and to make one training
// batch, what a prefetching thread could take off a step.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "fsllm/data/batch.hpp"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: batch_bench SHARD.h5 BATCH_SIZE\n");
    return 2;
  }
  using Clock = std::chrono::steady_clock;
  auto const micros = [](Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  auto start = Clock::now();
  auto const shard = fsllm::read_shard(argv[1]);
  auto const rows = shard.train.rows();
  std::printf("reading the shard: %.1f us a row (%lld rows)\n",
              micros(Clock::now() - start) / static_cast<double>(rows), static_cast<long long>(rows));
  fsllm::BatchOrder order(rows, {.batch_size = std::atoll(argv[2])}, 1, 1, 0, 0);
  constexpr int kSteps = 2000;
  int64_t tokens = 0;
  start = Clock::now();
  for (int step = 0; step < kSteps; ++step) {
    fsllm::Batch batch;
    for (auto const row : order.rows_of_step(step)) fsllm::append_row(batch, shard.train, row);
    tokens += batch.num_tokens();
  }
  std::printf("a batch: %.1f us, %.0f tokens\n", micros(Clock::now() - start) / kSteps,
              static_cast<double>(tokens) / kSteps);
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Time to draw masks of dropout on one core, beside LibTorch's bernoulli_ with a generator.
//   dropout_bench   → a line a width: {"width": w, "ns": x, "bernoulli_ns": y}, nanoseconds an element
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/model/dropout.hpp"

namespace {

/// The best of five.
template <class Draw>
double seconds_of(Draw const& draw) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    auto const start = std::chrono::steady_clock::now();
    draw();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

int main() {
  at::set_num_threads(1);
  auto const generator = at::detail::createCPUGenerator(1);
  for (int64_t const width : {6, 17, 31, 64, 576, 2048}) {
    int64_t const count = 4'000'000 / width;
    auto const zero = at::zeros({count}, at::kLong);
    fsllm::DropoutLines const lines{zero, zero, at::arange(count, at::kLong), {}};
    double const ours = seconds_of([&] { fsllm::keep_mask(lines, width, 0.1, "a site"); });
    double const theirs = seconds_of([&] {
      at::empty({count, width}, at::kBool).bernoulli_(0.9, generator);
    });
    auto const an_element = 1e9 / static_cast<double>(count * width);
    std::cout << nlohmann::json{{"width", width},
                                {"ns", ours * an_element},
                                {"bernoulli_ns", theirs * an_element}}
              << "\n";
  }
  return 0;
}

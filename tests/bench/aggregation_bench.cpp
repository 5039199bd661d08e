// SPDX-License-Identifier: Apache-2.0
// What the server does with the clients' messages, beside its bounds in the same run: FedAvg against memcpy
// of the same bytes, flexlora against an SVD of the dense update, fedask for few and many clients.
#include <ATen/Parallel.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/peft/low_rank.hpp"

namespace fsllm {
namespace {

double seconds_of(std::function<void()> const& call) {
  auto const start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// LoRA of this rank on q and v of blocks of this width.
LoraFactors lora_of(int64_t blocks) {
  LoraFactors lora;
  lora.seed = 1;
  for (int64_t i = 0; i < 2 * blocks; ++i) {
    auto const module = fmt::format("model.layers.{}.self_attn.{}", i / 2, i % 2 == 0 ? "q_proj" : "v_proj");
    lora.targets.push_back({module, module + ".lora_A.weight", module + ".lora_B.weight", 2});
  }
  return lora;
}

TensorMap weights_of(LoraFactors const& lora, int64_t width, int64_t rank) {
  TensorMap weights;
  for (auto const& target : lora.targets) {
    weights.emplace(target.a, at::randn({rank, width}));
    weights.emplace(target.b, at::randn({width, rank}));
  }
  return weights;
}

FedAlgorithm algorithm_of(std::string const& yaml, LoraFactors const& lora) {
  auto config = Config::parse(yaml, "bench.yaml");
  auto algorithm = load_fed_config(config).algorithm;
  bind_factors(algorithm, lora);
  return algorithm;
}

/// One client's update again and again: what it costs a rank to add it.
void fedavg(int64_t clients) {
  auto const update = weights_of(lora_of(32), 4096, 16);
  auto const aggregation = make_exact_aggregation({update, {}, {}}, 48);
  auto copy = clone(update);
  double memcpy_seconds = 0, add_seconds = 0, best = 1e9;
  for (int64_t k = 0; k < clients; ++k) {
    memcpy_seconds += seconds_of([&] {
      for (auto const& [name, tensor] : update)
        std::memcpy(copy.at(name).mutable_data_ptr(), tensor.const_data_ptr(), tensor.nbytes());
    });
    double const one = seconds_of([&] {
      aggregation->add({update, {}, {}}, {k + 1, 0, 1 / static_cast<double>(clients)});
    });
    add_seconds += one;
    best = std::min(best, one);
  }
  fmt::print(
      "FedAvg, {} clients of LLaMA-7B's LoRA r 16 on q and v ({:.0f} MiB each): {:.2f} x memcpy of the same "
      "bytes ({:.1f} ms a client)\n",
      clients, static_cast<double>(num_bytes(update)) / 1048576, add_seconds / memcpy_seconds,
      1e3 * add_seconds / static_cast<double>(clients));
}

/// One matrix: factors of `clients` clients against the dense way.
void flexlora(int64_t clients, int64_t width, int64_t rank) {
  auto const left = at::randn({width, clients * rank}), right = at::randn({clients * rank, width});
  double const ours = seconds_of([&] { orthonormal_factors(svd_of_product(left, right), rank, 2); });
  double const dense = seconds_of([&] { at::linalg_svd(at::mm(left, right), false); });
  fmt::print(
      "flexlora, {} clients, {} x {}, r {}: {:.2f} s, SVD of the dense update {:.2f} s: {:.1f} x faster\n",
      clients, width, width, rank, ours, dense, dense / ours);
}

/// The server's part of a round alone.
double fedask(int64_t clients) {
  auto const lora = lora_of(4);
  auto const algorithm = algorithm_of("federate: {lora_aggregation: fedask}", lora);
  auto const weights = weights_of(lora, 1024, 16);
  ServerState server{clone(weights), {}, {}, {}};
  auto const collective = make_host_collective(Communicator::self());
  Message const layout{algorithm.averaged(weights), {}, {}};
  auto const aggregation = make_two_sums(layout, weights, *algorithm.second, 48);
  RoundPlan plan{0, clients, {}};
  for (int64_t k = 1; k <= clients; ++k) {
    TensorMap state;
    ClientTurn turn{plan, {k, 0, 1 / static_cast<double>(clients)}, server, weights, weights, state, {}, {}};
    aggregation->add(message_of(algorithm, turn), turn.task);
  }
  auto const arrived = aggregation->reduce(*collective);
  auto const step = algorithm.server_step(weights);
  return seconds_of([&] { step->step(server, arrived, plan); });
}

void run() {
  at::set_num_threads(1);
  fedavg(20);
  fedavg(100);
  flexlora(8, 1024, 16);
  flexlora(8, 2048, 16);
  for (int64_t const clients : {10, 1000})
    fmt::print("fedask, {} clients: the server's step takes {:.3f} s\n", clients, fedask(clients));
}

}  // namespace
}  // namespace fsllm

int main(int argc, char** argv) {
  fsllm::MpiSession const session(argc, argv);
  fsllm::run();
}

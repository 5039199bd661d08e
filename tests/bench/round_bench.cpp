// SPDX-License-Identifier: Apache-2.0
// A federated round without training, beside memcpy of the bytes that must move and with its peak memory.
// Run: mpirun -np N round_bench CLIENTS BYTES native|exact [ROUNDS]. Prints one line of JSON.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "fsllm/comm/gather.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/io/checksum.hpp"

namespace fsllm {
namespace {

constexpr int64_t kChunkBytes = 192 << 20;  ///< what all updates of a rank are views of

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A line of /proc/self/status, in bytes.
int64_t status_of(std::string const& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) << 10;
  fail("/proc/self/status has no " + key + " (not Linux). Run on Linux.");
}

/// A model's weights in zeros: up to 128 MiB LoRA's of rank 10 on width 4096, beyond a LLaMA's of width 2048.
TensorMap model_of(int64_t bytes) {
  std::vector<int64_t> const shapes =
      bytes <= 128 << 20 ? std::vector<int64_t>{10 * 4096} : std::vector<int64_t>{2048 * 2048, 2048 * 5632};
  TensorMap weights;
  for (int64_t left = bytes / 4, i = 0; left > 0; ++i) {
    int64_t const count = std::min(left, shapes[static_cast<size_t>(i) % shapes.size()]);
    weights.emplace(fmt::format("model.layers.{:04d}.weight", i), at::zeros({count}));
    left -= count;
  }
  return weights;
}

class Bench {
 public:
  Bench(int64_t clients, int64_t bytes, bool exact)
      : collective_(make_host_collective(Communicator::world())),
        comm_(collective_->communicator()),
        clients_(clients),
        exact_(exact) {
    auto config = Config::parse("federate: {method: fedavg}", "bench.yaml");
    fed_ = load_fed_config(config);
    server_.weights = model_of(bytes);
    step_ = fed_.algorithm.server_step(server_.weights);
    buffer_ = at::empty({std::min(kChunkBytes, clients * bytes) / 4});
    auto* const values = buffer_.mutable_data_ptr<float>();
    for (int64_t i = 0; i < buffer_.numel(); ++i)
      values[i] = static_cast<float>((i * 2654435761 >> 7) % 2001 - 1000) * 1e-3F;
  }

  /// The weights move by the mean of the updates: the largest error of some of them, after `rounds` rounds.
  double error(int64_t rounds) const {
    double worst = 0;
    std::vector<TensorMap> all;
    for (int64_t k = 0; k < clients_; ++k) all.push_back(update_of(k));
    for (auto const& [name, weight] : server_.weights)
      for (int64_t i = 0; i < weight.numel(); i += 997) {
        double mean = 0;
        for (auto const& update : all) mean += update.at(name).const_data_ptr<float>()[i];
        mean *= static_cast<double>(rounds) / static_cast<double>(clients_);
        worst = std::max(worst, std::fabs(weight.const_data_ptr<float>()[i] - mean));
      }
    return worst;
  }

  /// Collective: a round as Run::train_round() makes it, from the first message on. Seconds of the phases.
  std::vector<double> round() {
    std::vector<double> laps;
    comm_.barrier();
    auto start = Clock::now();
    auto const lap = [&] {
      laps.push_back(since(start));
      start = Clock::now();
    };
    {
      Message const layout{fed_.algorithm.averaged(server_.weights), {}, {}};
      auto const aggregation = exact_
                                   ? make_exact_aggregation(layout, static_cast<int>(fed_.fixed_point_bits))
                                   : make_native_aggregation(layout);
      for (int64_t k = comm_.rank(); k < clients_; k += comm_.size())
        aggregation->add({update_of(k), {}, {}}, {k + 1, 0, 1 / static_cast<double>(clients_)});
      lap();
      check_same_state();
      lap();
      auto const arrived = aggregation->reduce(*collective_);
      lap();
      if (comm_.rank() == 0) step_->step(server_, arrived, {0, clients_, {}});
      collective_->broadcast(server_.weights, 0);
    }
    comm_.barrier();
    lap();
    return laps;
  }

  /// Collective: the same bytes by memcpy, all ranks at once: each update of this rank's clients once, and
  /// the global state once.
  double copy(TensorMap& to) {
    comm_.barrier();
    auto const start = Clock::now();
    for (int64_t k = comm_.rank(); k < clients_; k += comm_.size()) copy_tensors(to, update_of(k));
    copy_tensors(to, server_.weights);
    comm_.barrier();
    return since(start);
  }

  TensorMap const& weights() const { return server_.weights; }
  int64_t buffer_bytes() const { return static_cast<int64_t>(buffer_.nbytes()); }
  Communicator const& comm() const { return comm_; }

 private:
  static void copy_tensors(TensorMap& to, TensorMap const& from) {
    for (auto const& [name, tensor] : from)
      std::memcpy(to.at(name).mutable_data_ptr(), tensor.const_data_ptr(), tensor.nbytes());
  }

  /// A client's update, whose tensors are views of the buffer.
  TensorMap update_of(int64_t client) const {
    int64_t const size = buffer_.numel();
    int64_t begin = client * num_parameters(server_.weights) % size / 16 * 16;
    TensorMap update;
    for (auto const& [name, weight] : server_.weights) {
      if (begin + weight.numel() > size) begin = 0;
      update.emplace(name, buffer_.narrow(0, begin, weight.numel()));
      begin += (weight.numel() + 15) / 16 * 16;
    }
    return update;
  }

  void check_same_state() const {
    uint64_t own = 0;
    for (auto const& [name, tensor] : server_.weights)
      own = own * 31 + checksum64({static_cast<std::byte const*>(tensor.const_data_ptr()), tensor.nbytes()});
    auto const all = all_gather(std::vector{own}, comm_);
    FSLLM_CHECK(std::ranges::count(all, own) == std::ssize(all), "ranks differ (a bug). Mend it.");
  }

  std::unique_ptr<Collective> collective_;
  Communicator comm_;
  int64_t clients_;
  bool exact_;
  FedConfig fed_;
  ServerState server_;
  std::unique_ptr<ServerStep> step_;
  at::Tensor buffer_;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void run(int64_t clients, int64_t bytes, bool exact, int64_t rounds) {
  at::set_num_threads(1);
  Bench(2, 1 << 20, exact).round();  // what libraries take at their first use is none of the round's
  int64_t const before = status_of("VmRSS");
  Bench bench(clients, bytes, exact);
  std::vector<double> whole, copies;
  std::vector<std::vector<double>> phases;
  int64_t peak = 0;
  for (int64_t i = 0; i < rounds; ++i) {
    {
      auto to = clone(bench.weights());
      copies.push_back(bench.copy(to));
    }
    malloc_trim(0);                                 // what `to` took is none of the round's
    std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM begins anew
    auto const laps = bench.round();
    peak = std::max(peak, status_of("VmHWM") - before);
    double sum = 0;
    for (size_t j = 0; j < laps.size(); ++j) {
      if (phases.size() <= j) phases.emplace_back();
      phases[j].push_back(laps[j]);
      sum += laps[j];
    }
    whole.push_back(sum);
  }
  FSLLM_CHECK(bench.error(rounds) < 1e-4 * static_cast<double>(rounds), "the mean is wrong (by {}). Mend it.",
              bench.error(rounds));
  peak = bench.comm().max(peak);
  if (bench.comm().rank() != 0) return;
  std::vector<double> lap;
  for (auto const& each : phases) lap.push_back(median(each));
  double const mib = 1 << 20;
  fmt::print(R"({{"clients": {}, "bytes": {}, "reduce": "{}", "ranks": {}, "rounds": {}, )", clients, bytes,
             exact ? "exact" : "native", bench.comm().size(), rounds);
  fmt::print(R"("seconds": {:.4f}, "memcpy_seconds": {:.4f}, "ratio": {:.2f}, "ratio_of_best": {:.2f}, )",
             median(whole), median(copies), median(whole) / median(copies),
             std::ranges::min(whole) / std::ranges::min(copies));
  fmt::print(R"("add_check_reduce_publish": [{:.4f}], "peak_mib": {:.0f}, "buffer_mib": {:.0f}}})"
             "\n",
             fmt::join(lap, ", "), static_cast<double>(peak) / mib,
             static_cast<double>(bench.buffer_bytes()) / mib);
}

}  // namespace
}  // namespace fsllm

int main(int argc, char** argv) {
  fsllm::MpiSession const session(argc, argv);
  if (argc < 4) fsllm::fail("round_bench CLIENTS BYTES native|exact [ROUNDS]");
  fsllm::run(std::atoll(argv[1]), std::atoll(argv[2]), std::string_view(argv[3]) == "exact",
             argc > 4 ? std::atoll(argv[4]) : 9);
}

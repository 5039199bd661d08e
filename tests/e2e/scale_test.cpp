// SPDX-License-Identifier: Apache-2.0
// Thousands of clients of which a round samples few: memory and files follow the sample, not the federation.
// FSLLM_CLIENTS=N sets how many there are (tests/stress.sh clients N: 50 rounds of 100 clients).
#include <cstdlib>
#include <fstream>
#include <set>

#include "damage.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm::test {
namespace {

int clients_from_environment() {
  char const* const count = std::getenv("FSLLM_CLIENTS");
  return count == nullptr ? 0 : std::atoi(count);
}

class Scale : public testing::Test {
 protected:
  Scale() { prepare(dir_.path()); }

  /// Shards of this many clients with two short rows each.
  void shard(int clients) {
    auto const rows = dir_ / fmt::format("rows{}.jsonl", clients);
    std::ofstream file(rows);
    for (int k = 0; k < clients; ++k)
      for (auto const* word : {"red", "blue"})
        file << fmt::format(
            "{{\"instruction\": \"the {} {}\", \"output\": \"a {} cat\", \"client\": \"{}\"}}\n", word, k % 7,
            word, k);
    file.close();
    auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
    auto const outcome =
        run(dir_.path(), 2,
            {"fsllm_shard", "--cfg", config, "--out", shards(clients).string(), "data.type", rows.string(),
             "data.splitter", "natural", "data.splitter_args", "[{field: client}]", "data.splits", "[1,0,0]",
             "federate.client_num", std::to_string(clients)});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }
  fs::path shards(int clients) const { return dir_ / fmt::format("shards{}", clients); }

  void train(std::string const& name, int clients) {
    auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
    auto const outcome =
        run(dir_.path(), 2,
            {"fsllm_hpc", "--cfg", config, "expname", name, "data.shards", shards(clients).string(),
             "federate.client_num", std::to_string(clients), "federate.method", "scaffold",
             "federate.total_round_num", std::to_string(rounds_), "federate.sample_client_num",
             std::to_string(sample_)});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }

  /// Peak memory of the larger rank after each round.
  std::vector<double> memory(std::string const& name) {
    std::vector<double> bytes;
    for (auto const& event : read_events(dir_ / name / "metrics.jsonl"))
      if (event.at("event") == "round") bytes.push_back(event.at("peak_rss_bytes").get<double>());
    return bytes;
  }

  std::set<int64_t> trained(std::string const& name) {
    std::set<int64_t> clients;
    for (auto const& line : read_events(dir_ / name / "metrics_clients.jsonl"))
      clients.insert(line.at("client").get<int64_t>());
    return clients;
  }

  TempDir dir_;
  int rounds_ = 12, sample_ = 20;
};

TEST_F(Scale, MemoryAndFilesFollowTheSample) {
  int few = 40, many = 1200;
  if (int const asked = clients_from_environment(); asked > 0) {
    few = 200;
    many = asked;
    rounds_ = 50;
    sample_ = 100;
  }
  for (int const clients : {few, many}) {
    shard(clients);
    train(fmt::format("run{}", clients), clients);
    if (HasFatalFailure()) return;
  }
  auto const name = fmt::format("run{}", many);
  auto const small = memory(fmt::format("run{}", few)), large = memory(name);
  fmt::print("peak of {} clients {:.3f} times that of {}; last round {:.3f} times the fifth\n", many,
             large.back() / small.back(), few, large.back() / large.at(4));
  EXPECT_LE(large.back(), 1.3 * small.back());
  EXPECT_LE(large.back(), 1.02 * large.at(4));

  auto const sampled = trained(name);
  ASSERT_LT(std::ssize(sampled), many);
  std::set<int64_t> with_state;
  for (auto const& entry : fs::directory_iterator(dir_ / name / "clients"))
    with_state.insert(std::atoll(entry.path().filename().string().substr(7).c_str()));
  EXPECT_EQ(with_state, sampled);

  for (int64_t client = 1; client <= many; ++client)
    if (!sampled.contains(client)) fs::resize_file(shard_path(shards(many), client), 0);
  train("again", many);
  if (HasFatalFailure()) return;
  auto const adapter_of = [&](std::string const& run) {
    return read_text(dir_ / run / "adapter/adapter_model.safetensors");
  };
  EXPECT_TRUE(adapter_of("again") == adapter_of(name)) << "shards that no round needs play a part";
}

}  // namespace
}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
#include "check_command.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fsllm/app/prepare_data.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/counted.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/train/trainer.hpp"
#include "memory_plan.hpp"
#include "plan_command.hpp"
#include "ready_shards.hpp"
#include "run_tasks.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

/// Rows that are encoded to see how long they are.
constexpr int64_t kEncoded = 20000;
constexpr size_t kShownClients = 20;

struct ClientRows {
  int64_t id = 0, rows = 0;  ///< training rows
  double tokens = 0;         ///< of them
  int64_t val = 0, test = 0;
};

struct CheckedData {
  std::vector<ClientRows> clients;
  PrepareCounts counts;
  int64_t encoded = 0, samples = 0;  ///< of all that were read
  int64_t longest = 0;               ///< tokens of a row, where all were encoded
};

std::vector<int64_t> ids_of(std::vector<ClientRows> const& clients) {
  std::vector<int64_t> ids;
  for (auto const& client : clients) ids.push_back(client.id);
  return ids;
}

/// Reads and splits the data, and encodes the first rows.
CheckedData check_rows(Setup const& s) {
  auto const job = prepare_job(s, 1);
  RowTable table;
  CheckedData data;
  std::vector<int64_t> tokens;  // of each sample; 0: it is dropped
  auto const most = most_tokens(s);
  for_each_sample(s.run.data, [&](Sample&& sample) {
    table.add(sample, sample.record);
    if (table.rows() > kEncoded) return;
    auto const rows = prepare_rows(sample, job, data.counts);
    tokens.push_back(0);
    for (auto const& row : rows) {
      FSLLM_CHECK(most == 0 || std::cmp_less_equal(row.ids.size(), most),
                  "llm.tok_len = {} (the model takes {} tokens, and a row has {}). Set it to {}.",
                  s.run.data.tok_len, most, row.ids.size(), most);
      tokens.back() += std::ssize(row.ids);
      data.longest = std::max(data.longest, std::ssize(row.ids));
    }
  });
  warn_of_truncation(data.counts, s.run.data.tok_len);
  data.samples = table.rows();
  data.encoded = std::ssize(tokens);
  if (data.encoded < data.samples) data.longest = 0;
  auto const kept =
      static_cast<double>(std::count_if(tokens.begin(), tokens.end(), [](auto n) { return n > 0; }));
  auto const mean =
      kept > 0 ? static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), int64_t{0})) / kept : 0;
  auto const plan = plan_split(table, s.run.data, s.run.fed.client_num, s.run.fed.seed);
  bool const merged = s.run.fed.algorithm.merges;
  for (auto const& parts : plan.clients) {
    if (data.clients.empty() || !merged) data.clients.push_back({std::ssize(data.clients) + 1});
    auto& client = data.clients.back();
    client.val += std::ssize(parts.val);
    client.test += std::ssize(parts.test);
    for (int64_t const row : parts.train) {
      bool const known = std::cmp_less(row, tokens.size());
      double const of_row = known ? static_cast<double>(tokens[static_cast<size_t>(row)]) : mean;
      client.rows += of_row > 0 ? 1 : 0;
      client.tokens += of_row;
    }
  }
  return data;
}

CheckedData check_shards(Setup const& s, std::vector<ClientSource> sources, Communicator const& comm) {
  CheckedData data;
  for (auto const& source : sources)
    if (source.summary.client_id > 0)
      data.clients.push_back({source.summary.client_id, source.summary.train.rows,
                              static_cast<double>(source.summary.train.tokens), source.summary.val.rows,
                              source.summary.test.rows});
  ClientData const of_clients(std::move(sources), s.tokenizer_sha256(), s.model.vocab_size, most_tokens(s),
                              false, s.run.train.loss);
  check_client_count(s, of_clients);
  of_clients.check(comm.rank(), comm.size());
  return data;
}

std::string percent(int64_t part, int64_t all) {
  return all > 0 ? fmt::format("{:.1f} %", 100.0 * static_cast<double>(part) / static_cast<double>(all))
                 : "0 %";
}

void print_data(CheckedData const& data, int64_t tok_len) {
  if (data.samples > 0)
    fmt::print("{} rows{}: {} cut to llm.tok_len = {} ({}), {} dropped ({})\n", data.samples,
               data.encoded < data.samples ? fmt::format(", of the first {}", data.encoded) : "",
               data.counts.truncated, tok_len, percent(data.counts.truncated, data.encoded),
               data.encoded - data.counts.rows, percent(data.encoded - data.counts.rows, data.encoded));
  fmt::print("{:>8} {:>10} {:>12} {:>8} {:>8}\n", "client", "rows", "tokens", "val", "test");
  auto const shown = std::min(data.clients.size(), kShownClients);
  for (size_t i = 0; i < shown; ++i) {
    auto const& client = data.clients[i];
    fmt::print("{:>8} {:>10} {:>12.0f} {:>8} {:>8}\n", client.id, client.rows, client.tokens, client.val,
               client.test);
  }
  if (shown < data.clients.size()) fmt::print("     ... {} more\n", data.clients.size() - shown);
}

/// Tokens of a client's turn, as far as rows are alike.
double turn_tokens(Setup const& s, ClientRows const& client) {
  auto const own = s.clients.find(client.id);
  auto const& train = own == s.clients.end() ? s.run.train : own->second.train;
  auto const batches = static_cast<double>(planned_steps(train, client.rows) * train.accumulation);
  auto const rows = static_cast<double>(std::min(client.rows, train.batch.batch_size));
  return batches * rows * client.tokens / static_cast<double>(std::max<int64_t>(1, client.rows));
}

void print_placement(Setup const& s, CheckedData const& data, int ranks) {
  std::vector<double> costs;
  for (auto const& client : data.clients) costs.push_back(turn_tokens(s, client));
  double const all = std::accumulate(costs.begin(), costs.end(), 0.0);
  auto const& fed = s.run.fed;
  bool const some = fed.sample_client_num > 0 || fed.sample_client_rate > 0;
  fmt::print("{:.0f} tokens a round{}, {}\n", all, some ? ", if all clients trained" : "",
             counted(fed.rounds, "round"));
  if (ranks == 1 || s.run.group.ranks > 1 || !s.run.shard_roots.empty() || some) return;
  auto const placed = place_clients(ids_of(data.clients), costs, ranks, fed.server_trains ? 0 : 1);
  for (size_t rank = 0; rank < std::min(placed.size(), kShownClients); ++rank) {
    auto clients = placed[rank];
    std::sort(clients.begin(), clients.end());
    bool const more = clients.size() > kShownClients;
    if (more) clients.resize(kShownClients);
    fmt::print("rank {} trains {} {}{}\n", rank, clients.size() == 1 ? "client" : "clients",
               fmt::join(clients, ", "),
               more              ? ", ..."
               : clients.empty() ? "(none)"
                                 : "");
  }
}

}  // namespace

PrepareJob prepare_job(Setup const& s, int threads) {
  return {s.run.data, s.run.fed.seed, s.tokenizer(), s.model.vocab_size, threads, s.prompt};
}

int check_command(Setup const& s, std::vector<ClientSource> ready, Communicator const& comm) {
  RunTasks const tasks(s, comm);
  CheckedData data;
  bool const has_shards = !ready.empty();
  auto const sources = ready;
  if (has_shards) agree(comm, [&] { data = check_shards(s, std::move(ready), comm); });
  int64_t const ranks_on_node = comm.max(comm.split_by_node().size());
  agree(comm, [&] {
    if (comm.rank() != 0) return;
    if (!has_shards) data = check_rows(s);
    check_clients(s, ids_of(data.clients), [&](int64_t client) {
      return std::ranges::find(data.clients, client, &ClientRows::id)->rows;
    });
    auto options = s.load;
    options.values = false;
    auto const model = load_grown(s, s.model_dir, options);
    int64_t const bytes = weight_bytes(*model);
    if (s.load.device == "cpu") warn_of_memory(bytes);
    int64_t learning = num_parameters(model->parameters());
    int64_t const all = learning;
    if (!s.run.peft.method.empty()) {
      auto const peft = make_peft(s.run.peft, *model, s.run.fed.seed);
      if (s.emulator) check_adapter(peft->state(), *s.emulator);
      learning = num_parameters(peft->state());
    }
    fmt::print("configuration, data and model are good: {}, {} model {} with {:.1f} MiB of weights\n",
               counted(std::ssize(data.clients), "client"), s.model.family, s.model_dir.string(),
               static_cast<double>(bytes) / kMiB);
    fmt::print("{} of {} parameters learn ({})\n", learning, all,
               s.run.peft.method.empty() ? "the full model" : s.run.peft.method);
    print_data(data, s.run.data.tok_len);
    print_placement(s, data, comm.size());
    if (!s.emulator) print_memory(s, sources, data.longest, comm.size(), ranks_on_node);
  });
  return 0;
}

}  // namespace fsllm

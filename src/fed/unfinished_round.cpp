// SPDX-License-Identifier: Apache-2.0
#include "unfinished_round.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/comm/gather.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::detail {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char const *kFolder = "unfinished", *kRound = "unfinished/round.json";
constexpr char const *kReports = "reports", *kTurns = "turns", *kSums = "sums/";

std::string name_of(int rank) {
  return fmt::format("{}/rank_{:05d}.safetensors", kFolder, rank);
}

std::string turn_prefix(int64_t client, int64_t version) {
  return fmt::format("client_{}.{}/", client, version);
}

/// Plain structs as their bytes: a file is read by the version that wrote it (sizes are compared).
template <class T>
at::Tensor bytes_of(std::vector<T> const& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  auto bytes = at::empty({static_cast<int64_t>(values.size() * sizeof(T))}, at::kByte);
  if (!values.empty()) std::memcpy(bytes.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return bytes;
}

template <class T>
std::vector<T> values_of(at::Tensor const& bytes) {
  std::vector<T> values(static_cast<size_t>(bytes.numel()) / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.const_data_ptr(), values.size() * sizeof(T));
  return values;
}

void put(TensorMap& all, std::string const& prefix, TensorMap const& part) {
  for (auto const& [name, tensor] : moved(part, at::kCPU)) all.emplace(prefix + name, tensor.contiguous());
}

TensorMap to_tensors(UnfinishedWork const& work) {
  TensorMap all{{kReports, bytes_of(work.reports)}};
  put(all, kSums, work.sums);
  std::vector<int64_t> turns;
  for (auto const& turn : work.resting) {
    auto const prefix = turn_prefix(turn.client, turn.version);
    turns.insert(turns.end(), {turn.client, turn.version});
    put(all, prefix + "parameters/", turn.parameters);
    put(all, prefix + "optimizer/", turn.training.optimizer);
    all.emplace(prefix + "result", bytes_of(std::vector{turn.training.result}));
    all.emplace(prefix + "moves", bytes_of(turn.training.moves));
  }
  all.emplace(kTurns, bytes_of(turns));
  return all;
}

UnfinishedWork from_tensors(TensorMap const& all) {
  UnfinishedWork work{values_of<ClientReport>(all.at(kReports)), part_of(all, kSums), {}};
  auto const turns = values_of<int64_t>(all.at(kTurns));
  for (size_t i = 0; i + 1 < turns.size(); i += 2) {
    auto const prefix = turn_prefix(turns[i], turns[i + 1]);
    TrainingState training{values_of<TrainResult>(all.at(prefix + "result")).at(0),
                           part_of(all, prefix + "optimizer/"),
                           values_of<ZerothOrderMove>(all.at(prefix + "moves"))};
    work.resting.push_back(
        {turns[i], turns[i + 1], part_of(all, prefix + "parameters/"), std::move(training)});
  }
  return work;
}

json sizes() {
  return {sizeof(ClientReport), sizeof(TrainResult), sizeof(ZerothOrderMove)};
}

/// What round.json says, where it is of this round and all files are those it lists.
json find_round(fs::path const& run_directory, int64_t round) {
  auto const file = run_directory / kRound;
  if (!fs::exists(file)) return {};
  auto found = json::parse(read_file(file), nullptr, false);
  auto const is_number = [&](char const* key) {
    return found.contains(key) && found.at(key).is_number_integer();
  };
  bool const valid = found.is_object() && is_number("round") && found.contains("files") &&
                     found.contains("states") && found.value("sizes", json()) == sizes();
  if (valid && found.at("round") != round) return {};
  for (size_t rank = 0; valid && rank < found.at("files").size(); ++rank) {
    auto const part = run_directory / name_of(static_cast<int>(rank));
    if (fs::exists(part) && checksum64_file(part) == found.at("files")[rank].get<uint64_t>()) continue;
    log_warning("{} is damaged or gone: round {} begins anew", part.string(), round + 1);
    return {};
  }
  if (valid) return found;
  log_warning("{} cannot be used (it is damaged, or another version wrote it): round {} begins anew",
              file.string(), round + 1);
  return {};
}

}  // namespace

void save_unfinished(OutputFolder* output, fs::path const& run_directory, int64_t round,
                     UnfinishedWork const& work, std::vector<ClientStateFile> const& states,
                     Communicator const& comm) {
  if (output != nullptr) {
    std::vector<std::string> names;
    for (int rank = 0; rank < comm.size(); ++rank) names.push_back(name_of(rank));
    remove_unfinished(*output);
    output->own(names);
    make_private_folder(run_directory / kFolder);
  }
  comm.barrier();
  auto const path = run_directory / name_of(comm.rank());
  write_safetensors(path, to_tensors(work), {{"format", "pt"}}, OutputFolder::scratch_of(run_directory),
                    FileAccess::owner_only);
  auto const files = all_gather(std::vector{checksum64_file(path)}, comm);
  if (output == nullptr) return;
  json listed = json::array();
  for (auto const& file : states) listed.push_back({file.client, file.round, file.checksum});
  json const found{{"round", round}, {"sizes", sizes()}, {"files", files}, {"states", listed}};
  output->write(kRound, found.dump() + "\n");
}

std::optional<UnfinishedRound> load_unfinished(fs::path const& run_directory, int64_t round,
                                               Communicator const& comm) {
  std::string text;
  if (comm.rank() == 0)
    if (auto const found = find_round(run_directory, round); !found.is_null()) text = found.dump();
  comm.broadcast(text, 0);
  if (text.empty()) return {};
  auto const found = json::parse(text);
  UnfinishedRound all;
  all.ranks = static_cast<int>(found.at("files").size());
  for (auto const& file : found.at("states"))
    all.states.push_back({file.at(0).get<int64_t>(), file.at(1).get<int64_t>(), file.at(2).get<uint64_t>()});
  for (int rank = 0; rank < all.ranks; ++rank) {
    auto work = from_tensors(SafetensorsReader(run_directory / name_of(rank)).tensors());
    for (auto const& report : work.reports) all.ended.emplace(report.client, report.version);
    for (auto& turn : work.resting)
      all.resting.emplace(std::pair(turn.client, turn.version), std::move(turn));
    if (rank % comm.size() == comm.rank())
      all.work.push_back({std::move(work.reports), clone(work.sums), {}});
  }
  if (comm.rank() == 0)
    log_info("round {}: {} turns had ended before the stop, and {} rest between two steps; they go on",
             round + 1, all.ended.size(), all.resting.size());
  return all;
}

bool holds_unfinished(fs::path const& run_directory) {
  return fs::exists(run_directory / kRound);
}

void remove_unfinished(OutputFolder& output) {
  output.remove({kRound});
  output.remove({std::string(kFolder) + "/"});
}

}  // namespace fsllm::detail

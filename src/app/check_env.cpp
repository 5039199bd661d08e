// SPDX-License-Identifier: Apache-2.0
#include "check_env.hpp"

#include <unistd.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "launch.hpp"
#include "time_limit.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

/// Seconds in which a file that one node has written must be seen by the others.
constexpr int kPatience = 10;
/// Room in /dev/shm that MPI's messages within a node need, in bytes a rank.
constexpr uintmax_t kSharedMemory = uintmax_t{16} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Weights by name and size, other files of a model by content.
std::string fingerprint_of(fs::path const& model) {
  if (!fs::exists(model)) return "";
  std::map<std::string, uint64_t> files;
  auto const add = [&](fs::path const& file) {
    auto const size = fs::file_size(file);
    constexpr uintmax_t kSmall = uintmax_t{16} << 20;
    files[file.filename().string()] = size > kSmall ? size : checksum64_file(file);
  };
  if (!fs::is_directory(model))
    add(model);
  else
    for (auto const& entry : fs::directory_iterator(model))
      if (entry.is_regular_file()) add(entry.path());
  return json(files).dump();
}

class Check {
 public:
  explicit Check(Communicator const& world) : world_(world), is_first_(world.rank() == 0) {}

  void say(std::string const& line) const {
    if (is_first_) fmt::print("{}\n", line);
  }
  void problem(std::string const& text) {
    ++problems_;
    say("problem: " + text);
  }
  int result() const {
    say(problems_ == 0 ? "ready" : fmt::format("{} problem{}", problems_, problems_ == 1 ? "" : "s"));
    return problems_ == 0 ? 0 : kExitBadInput;
  }

  /// Collective.
  void look_at_ranks() {
    ranks_ = launch_facts(world_);
    auto const faults = judge_launch(ranks_);
    choose_device("auto", world_);  // binds ranks as a run would
    json const own{{"memory", available_memory()}, {"shm", space_in("/dev/shm")}};
    auto const room = world_.all_gather(own.dump());
    std::map<int, std::vector<int>> nodes;
    for (int rank = 0; rank < world_.size(); ++rank)
      nodes[ranks_[static_cast<size_t>(rank)].node].push_back(rank);
    say(fmt::format("{} ranks on {} nodes, {}", world_.size(), nodes.size(), mpi_library_version()));
    auto const table = placement_table(world_);
    say(table);
    for (auto const& [first, ranks] : nodes)
      look_at_node(ranks_[static_cast<size_t>(first)], ranks.size(),
                   json::parse(room[static_cast<size_t>(first)]));
    for (auto const& text : faults.errors) problem(text);
    for (auto const& text : faults.warnings) say("warning: " + text);
  }

  /// Collective: a small and a large sum over all ranks.
  void look_at_messages() {
    if (world_.size() == 1) return;
    constexpr int kSmall = 50;
    world_.max(0);
    auto start = Clock::now();
    for (int i = 0; i < kSmall; ++i) world_.max(i);
    double const latency = seconds_since(start) / kSmall;
    std::string bytes(size_t{8} << 20, 'x');
    world_.broadcast(bytes, 0);
    start = Clock::now();
    world_.broadcast(bytes, 0);
    world_.barrier();
    double const rate = static_cast<double>(bytes.size()) / seconds_since(start) / 1e9;
    say(fmt::format("messages: {:.3f} ms for a number of all ranks, {:.2f} GB/s for 8 MiB from rank 0",
                    latency * 1e3, rate));
    if (latency > 0.02)
      say("  slow: ranks that share cores want OMPI_MCA_mpi_yield_when_idle=1, or more cores a rank");
  }

  /// Collective: does every node see what rank 0 writes?
  void look_at_folder(fs::path const& wanted) {
    std::string place;
    if (is_first_) place = existing_part(wanted).string();
    world_.broadcast(place, 0);
    fs::path const folder(place);
    std::string name = fmt::format(".fsllm-check-{}", ::getpid());
    world_.broadcast(name, 0);
    agree(world_, [&] {
      if (is_first_) write_file_atomic(folder / name, "x");
    });
    auto const start = Clock::now();
    while (!fs::exists(folder / name) && seconds_since(start) < kPatience)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    auto const blind = ranks_with(!fs::exists(folder / name));
    std::error_code ignored;
    if (is_first_) fs::remove(folder / name, ignored);
    if (!blind.empty())
      problem(fmt::format(
          "{} is not shared: {} did not see within {} s what rank 0 wrote there. Set outdir to a folder "
          "on a file system of all nodes.",
          folder.string(), blind, kPatience));
    else
      say(fmt::format("{}: shared by all nodes, {} GiB free", folder.string(), space_in(folder) >> 30));
  }

  /// Collective.
  void look_at_model(fs::path const& model) {
    auto const all = world_.all_gather(fingerprint_of(model));
    auto const absent = ranks_with(all[static_cast<size_t>(world_.rank())].empty());
    auto const other = ranks_with(all[static_cast<size_t>(world_.rank())] != all[0]);
    if (!absent.empty())
      problem(fmt::format(
          "model.type = {} is not there for {}. Copy it there, or use a folder that all nodes share.",
          model.string(), absent));
    else if (!other.empty())
      problem(fmt::format("model.type = {} is not what rank 0 has for {}. Copy the same model there.",
                          model.string(), other));
    else
      say(fmt::format("model {}: the same on all nodes", model.string()));
  }

  void look_at_job() const {
    auto const job = batch_job().id;
    if (job.empty() || !is_first_) return;
    auto const left = seconds_left_in_job();
    say(fmt::format("job {}, {}", job, left ? fmt::format("{:.0f} s left", *left) : "no time limit known"));
  }

 private:
  /// The folder, or the one that it would be made in.
  static fs::path existing_part(fs::path folder) {
    while (!folder.empty() && !fs::exists(folder)) folder = folder.parent_path();
    return folder.empty() ? fs::path(".") : folder;
  }
  static uintmax_t space_in(fs::path const& folder) {
    std::error_code error;
    auto const space = fs::space(folder, error);
    return error ? 0 : space.available;
  }

  /// Collective: "ranks 1, 3 (n2, n4)", or "" for none.
  std::string ranks_with(bool fault) const {
    std::vector<int> ranks;
    auto const all = world_.all_gather(fault ? "x" : "");
    for (size_t rank = 0; rank < all.size(); ++rank)
      if (!all[rank].empty()) ranks.push_back(static_cast<int>(rank));
    return ranks.empty() ? "" : ranks_text(ranks_, ranks);
  }

  void look_at_node(RankFacts const& facts, size_t ranks, json const& room) {
    auto const visible = facts.environment.find("CUDA_VISIBLE_DEVICES");
    say(fmt::format(
        "{}: {} ranks, {} GiB of memory free, {} GPUs{}", facts.host, ranks,
        room["memory"].get<int64_t>() >> 30, facts.cuda ? facts.gpus : 0,
        visible == facts.environment.end() ? "" : " (CUDA_VISIBLE_DEVICES=" + visible->second + ")"));
    if (auto const shm = room["shm"].get<uintmax_t>(); shm < kSharedMemory * ranks)
      problem(
          fmt::format("{}: /dev/shm has {} MiB left (its {} ranks need {}). Empty it, or give the container "
                      "more (--shm-size).",
                      facts.host, shm >> 20, ranks, kSharedMemory * ranks >> 20));
  }

  Communicator const& world_;
  bool is_first_;
  int problems_ = 0;
  std::vector<RankFacts> ranks_;
};

}  // namespace

int check_environment(EnvironmentPaths const& paths, Communicator const& world) {
  Check check(world);
  check.look_at_ranks();
  check.look_at_job();
  check.look_at_messages();
  check.look_at_folder(paths.shared);
  if (paths.model) check.look_at_model(*paths.model);
  return check.result();
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "run_record.hpp"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/app/command_line.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/matmul.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// Variables that choose other kernels or another order of sums.
constexpr char const* kVariables[] = {"MKL_CBWR",
                                      "MKL_ENABLE_INSTRUCTIONS",
                                      "MKL_DEBUG_CPU_TYPE",
                                      "MKL_NUM_THREADS",
                                      "ATEN_CPU_CAPABILITY",
                                      "DNNL_MAX_CPU_ISA",
                                      "ONEDNN_MAX_CPU_ISA",
                                      "ONEDNN_DEFAULT_FPMATH_MODE",
                                      "NVIDIA_TF32_OVERRIDE",
                                      "CUBLAS_WORKSPACE_CONFIG"};

std::string stamp_of(fs::path const& file) {
  struct stat info {};
  FSLLM_CHECK(::stat(file.c_str(), &info) == 0,
              "cannot read {} ({}). Leave a run's files in their place until it has ended.", file.string(),
              std::strerror(errno));
  return fmt::format("{} {} {} {}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ino);
}

std::string hex(uint64_t checksum) {
  return fmt::format("{:016x}", checksum);
}

/// The build's version of the library, without the lines about its licence.
std::string math_library() {
  auto text = at::get_mkl_version();
  return text.substr(0, text.find(" for "));
}

/// What decides bits on this rank beside configuration and inputs.
ordered_json computed_here(Setup const& s) {
  rlimit limit{};
  ::getrlimit(RLIMIT_AS, &limit);
  ordered_json facts{{"fsllm_hpc", FSLLM_VERSION},
                     {"device", s.device.gpu < 0 ? "CPU" : "GPU"},
                     {"processor", processor()},
                     {"instructions", at::get_cpu_capability()},
                     {"libtorch", TORCH_VERSION},
                     {"math_library", math_library()},
                     {"matmul", matmul_kernels()},
                     {"threads", at::get_num_threads()},
                     {"memory_limit",
                      limit.rlim_cur == RLIM_INFINITY ? ordered_json("none") : ordered_json(limit.rlim_cur)}};
  for (auto const* name : kVariables)
    if (char const* const value = std::getenv(name); value != nullptr) facts["environment"][name] = value;
  return facts;
}

/// The facts of all ranks; where they differ, a list of what there is.
ordered_json computed_on(Setup const& s, Communicator const& comm) {
  std::vector<ordered_json> ranks;
  for (auto const& text : comm.all_gather(computed_here(s).dump()))
    ranks.push_back(ordered_json::parse(text));
  auto all = ranks.front();
  for (auto& [key, value] : all.items()) {
    auto found = ordered_json::array();
    for (auto const& rank : ranks) {
      auto const here = rank.value(key, ordered_json());
      if (std::find(found.begin(), found.end(), here) == found.end()) found.push_back(here);
    }
    if (found.size() > 1) {
      value = found;
      if (comm.rank() == 0)
        log_warning("{} differs between ranks ({}): results depend on which rank trains which client.", key,
                    found.dump());
    }
  }
  return all;
}

/// One text for the shards of all clients.
std::string checksum_of(std::vector<ClientSource> const& sources) {
  std::string list;
  for (auto const& source : sources)
    list += fmt::format("{} {}\n", source.summary.client_id, source.summary.sha256);
  return sha256(list);
}

std::string shown(ordered_json const& value) {
  auto const text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() || value.is_null() ? "none" : text.substr(0, 60);
}

/// "model.model.safetensors (a before, b now)" for all leaves that differ.
std::vector<std::string> differences(ordered_json const& before, ordered_json const& now) {
  std::vector<std::string> found;
  auto const a = before.flatten(), b = now.flatten();
  auto const name = [](std::string path) {
    std::replace(path.begin() + 1, path.end(), '/', ' ');
    return path.substr(1);
  };
  for (auto const& [path, value] : a.items())
    if (auto const other = b.value(path, ordered_json()); other != value)
      found.push_back(fmt::format("{} ({} before, {} now)", name(path), shown(value), shown(other)));
  for (auto const& [path, value] : b.items())
    if (!a.contains(path)) found.push_back(fmt::format("{} (none before, {} now)", name(path), shown(value)));
  return found;
}

}  // namespace

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  std::map<std::string, std::string> first;
  for (std::string line; std::getline(info, line) && !line.empty();) {
    auto const colon = line.find(':');
    if (colon == std::string::npos) continue;
    auto const key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    first.emplace(key, line.substr(std::min(colon + 2, line.size())));
  }
  return first.contains("model name")
             ? fmt::format("{} (family {}, model {}, stepping {})", first["model name"], first["cpu family"],
                           first["model"], first["stepping"])
             : first["CPU part"];
}

InputFiles::InputFiles(Setup const& s) {
  auto const add = [&](std::string const& group, fs::path const& path) {
    files_.push_back({group, path, stamp_of(path), checksum64_file(path)});
  };
  for (auto const& path : model_files(s.full_model_dir)) add("model", path);
  if (s.emulator)
    for (auto const& path : model_files(s.model_dir)) add("emulator", path);
  if (s.run.peft.init_from.empty()) return;
  for (auto const* name : {"adapter_config.json", "adapter_model.safetensors"})
    if (auto const path = fs::path(s.run.peft.init_from) / name; fs::exists(path)) add("init_from", path);
}

ordered_json InputFiles::checksums() const {
  ordered_json checksums;
  for (auto const& file : files_) checksums[file.group][file.path.filename().string()] = hex(file.checksum);
  return checksums;
}

std::map<std::string, uint64_t> InputFiles::by_path() const {
  std::map<std::string, uint64_t> checksums;
  for (auto const& file : files_) checksums[file.path.string()] = file.checksum;
  return checksums;
}

void InputFiles::check_unchanged() {
  for (auto& file : files_) {
    auto stamp = stamp_of(file.path);
    if (stamp == file.stamp) continue;
    FSLLM_CHECK(
        checksum64_file(file.path) == file.checksum,
        "{} changed while the run was reading it (what was trained since is of no use). Put the old file "
        "back and continue with --resume.",
        file.path.string());
    file.stamp = std::move(stamp);
  }
}

std::string run_record(Setup const& s, InputFiles const* inputs, std::vector<ClientSource> const& sources,
                       Communicator const& comm) {
  auto facts = computed_on(s, comm);
  if (inputs == nullptr) return "";
  auto read = inputs->checksums();
  read["shards"] = checksum_of(sources);
  ordered_json given = ordered_json::object();
  if (!s.client_yaml.empty()) {
    auto const clients = Config::parse(s.client_yaml, "--client_cfg");
    for (auto const& key : clients.given_keys()) given[key] = clients.text(key).value_or("");
  }
  read["client_cfg"] = given;
  ordered_json where{{"after_round", 0}};
  where.update(facts);
  return ordered_json{{"inputs", read}, {"computed_on", ordered_json::array({where})}}.dump(1);
}

std::map<std::string, uint64_t> checksums_of_rank_0(InputFiles const* inputs, Communicator const& comm) {
  auto text = inputs != nullptr ? nlohmann::json(inputs->by_path()).dump() : "";
  comm.broadcast(text, 0);
  return nlohmann::json::parse(text).get<std::map<std::string, uint64_t>>();
}

std::string continued_record(std::string const& before, std::string const& now, int64_t round) {
  auto const old = ordered_json::parse(before, nullptr, false);
  auto here = ordered_json::parse(now);
  // Checkpoints of versions that recorded nothing.
  if (!old.is_object() || !old.contains("inputs") || !old.contains("computed_on")) return now;
  auto const changed = differences(old.at("inputs"), here.at("inputs"));
  FSLLM_CHECK(changed.empty(),
              "--resume with other inputs: {}. Put the run's own back, or start a new run with another "
              "expname.",
              fmt::join(changed, "; "));
  auto places = old.at("computed_on");
  auto last = places.back(), next = here.at("computed_on").back();
  for (auto* each : {&last, &next}) each->erase("after_round");
  if (auto const moved = differences(last, next); !moved.empty()) {
    log_warning(
        "this part of the run is computed otherwise than the part before: {}. Its bits may differ from those "
        "of a run that was never interrupted.",
        fmt::join(moved, "; "));
    next = here.at("computed_on").back();
    next["after_round"] = round;
    places.push_back(next);
  }
  here["computed_on"] = places;
  return here.dump(1);
}

namespace {

ordered_json read_record(RunDirectory const& run) {
  auto const file = run.record();
  auto record = fs::exists(file) ? ordered_json::parse(read_file(file), nullptr, false) : ordered_json();
  return record.is_object() ? record : ordered_json::object();
}

/// The words that started this process.
std::vector<std::string> command_words() {
  std::vector<std::string> words;
  std::ifstream file("/proc/self/cmdline");
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::string utc_now() {
  std::time_t const now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

void write_record(Setup const& s, std::string const& record, int64_t round,
                  std::vector<std::string> const& hosts) {
  auto json = ordered_json::parse(record);
  ordered_json start{{"after_round", round},       {"time", utc_now()},
                     {"command", command_words()}, {"commit", source_commit()},
                     {"ranks", hosts.size()},      {"hosts", std::set(hosts.begin(), hosts.end())}};
  for (auto const* name : {"SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID"})
    if (char const* const value = std::getenv(name); value != nullptr) start["job"][name] = value;
  auto starts =
      s.resume ? read_record(s.directory).value("starts", ordered_json::array()) : ordered_json::array();
  starts.push_back(start);
  json["seed"] = s.run.fed.seed;
  json["starts"] = starts;
  s.output->write("run.json", json.dump(1) + "\n");
}

void record_result(RunDirectory const& run, OutputFolder& output) {
  auto json = read_record(run);
  auto result = ordered_json::object();
  for (auto const& folder : {run.adapter(), run.best(), run.average(), run.model()}) {
    if (!fs::is_directory(folder)) continue;
    std::vector<fs::path> files;
    for (auto const& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file() && entry.path().extension() == ".safetensors")
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (auto const& file : files) result[fs::relative(file, run.root).string()] = sha256_file(file);
  }
  json["result"] = result;
  output.write("run.json", json.dump(1) + "\n");
}

}  // namespace fsllm

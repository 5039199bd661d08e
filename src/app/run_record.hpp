// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/fed/client_data.hpp"
#include "setup.hpp"

namespace fsllm {

/// The base model's files, and those of the adapter to start from, as they were when the run began.
class InputFiles {
 public:
  explicit InputFiles(Setup const& s);
  /// XXH64 by file name: {"model": {...}, "init_from": {...}}.
  nlohmann::ordered_json checksums() const;
  /// The same by path.
  std::map<std::string, uint64_t> by_path() const;
  /// A file whose content is another one now is an Error.
  void check_unchanged();

 private:
  struct File {
    std::string group;
    std::filesystem::path path;
    std::string stamp;  ///< size, time of change and inode
    uint64_t checksum = 0;
  };
  std::vector<File> files_;
};

/// run.json: what the run reads ("inputs"), and where from which round on it was computed ("computed_on"):
/// processors, libraries, threads and the variables of the environment that change bits. The same text on
/// every rank is not needed; rank 0's counts. Collective.
std::string run_record(Setup const& s, InputFiles const* inputs, std::vector<ClientSource> const& sources,
                       Communicator const& comm);

/// Collective: InputFiles::by_path() of rank 0, for all.
std::map<std::string, uint64_t> checksums_of_rank_0(InputFiles const* inputs, Communicator const& comm);

/// The record of a run that goes on after `round`, of what its checkpoint holds and of `now`. Other inputs
/// are an Error that names them; other processors, libraries or variables a warning.
std::string continued_record(std::string const& before, std::string const& now, int64_t round);

/// run.json: the record, what was started when, where and how ("starts", those before among them), and the
/// seed. Rank 0.
void write_record(Setup const& s, std::string const& record, int64_t round,
                  std::vector<std::string> const& hosts);
/// Adds SHA-256 of what the run has made ("result"). Rank 0.
void record_result(RunDirectory const& run, OutputFolder& output);

/// Name and numbers of this machine's processor, which choose a library's kernels.
std::string processor();

}  // namespace fsllm

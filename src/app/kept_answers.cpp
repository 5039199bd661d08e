// SPDX-License-Identifier: Apache-2.0
#include "kept_answers.hpp"

#include <bit>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string folder_of(std::string const& name) {
  return name + ".unfinished/";
}

std::string checksum_of(std::string const& settings, std::string const& text) {
  auto const all = settings + text;
  return fmt::format("{:016x}", checksum64(std::as_bytes(std::span(all.data(), all.size()))));
}

/// Log-likelihoods as their bits.
std::string to_text(FinishedBatch const& batch) {
  auto results = json::array();
  for (auto const& score : batch.scores)
    results.push_back({score.row, std::bit_cast<uint64_t>(score.loglikelihood), score.is_greedy});
  for (auto const& token : batch.tokens) results.push_back({token.row, token.id});
  return json{batch.is_written, batch.number, batch.rows, results}.dump();
}

FinishedBatch batch_of(json const& line) {
  FinishedBatch batch{line.at(0).get<bool>(), line.at(1).get<int64_t>(), line.at(2).get<int64_t>(), {}, {}};
  for (auto const& result : line.at(3)) {
    auto const row = result.at(0).get<int64_t>();
    if (batch.is_written)
      batch.tokens.push_back({row, result.at(1).get<int64_t>()});
    else
      batch.scores.push_back(
          {row, std::bit_cast<double>(result.at(1).get<uint64_t>()), result.at(2).get<bool>()});
  }
  return batch;
}

/// Lines of all ranks' files that are whole and belong to these settings, each batch once.
std::string good_lines(OutputFolder const& out, std::string const& name, std::string const& settings) {
  std::string good;
  std::set<std::string> seen;
  auto const folder = out.root() / folder_of(name);
  if (!fs::is_directory(folder)) return good;
  for (auto const& entry : fs::directory_iterator(folder)) {
    if (!out.owns(folder_of(name) + entry.path().filename().string())) continue;
    std::istringstream lines(read_file(entry.path()));
    for (std::string line; std::getline(lines, line);)
      if (line.size() > 17 && line.substr(0, 16) == checksum_of(settings, line.substr(17)) &&
          seen.insert(line).second)
        good += line.substr(17) + "\n";
  }
  return good;
}

}  // namespace

KeptAnswers::KeptAnswers(OutputFolder* out, std::string name, std::string settings, Communicator const& comm)
    : out_(out), name_(std::move(name)), settings_(std::move(settings)) {
  std::string root, kept;
  agree(comm, [&] {
    if (out_ == nullptr) return;
    kept = good_lines(*out_, name_, settings_);
    std::vector<std::string> files;
    for (int rank = 0; rank < comm.size(); ++rank)
      files.push_back(fmt::format("{}rank_{}", folder_of(name_), rank));
    out_->own(files);
    make_folder(out_->root() / folder_of(name_));
    root = fs::absolute(out_->root()).string();
  });
  comm.broadcast(root, 0);
  comm.broadcast(kept, 0);
  std::istringstream lines(kept);
  for (std::string line; std::getline(lines, line);) batches_.push_back(batch_of(json::parse(line)));
  auto const folder = fs::path(root) / folder_of(name_);
  if (!root.empty() && fs::is_directory(folder)) path_ = folder / fmt::format("rank_{}", comm.rank());
}

int64_t KeptAnswers::rows() const {
  int64_t rows = 0;
  for (auto const& batch : batches_) rows += batch.rows;
  return rows;
}

void KeptAnswers::add(FinishedBatch const& batch) {
  if (path_.empty()) return;
  auto const text = to_text(batch);
  if (!file_.is_open()) {
    file_.open(path_, std::ios::app);
    file_ << "\n";  // ends a line that was cut off
  }
  file_ << checksum_of(settings_, text) << " " << text << "\n" << std::flush;
  FSLLM_CHECK(file_.good(),
              "cannot write {} (answers are kept there while their task is under way). Check free space and "
              "permissions.",
              path_.string());
}

void KeptAnswers::remove(Communicator const& comm) {
  file_.close();
  comm.barrier();
  if (out_ != nullptr) out_->remove({folder_of(name_)});
}

}  // namespace fsllm

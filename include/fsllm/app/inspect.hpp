// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace fsllm {

/// What a path holds: a shard or folder of shards, a checkpoint, an adapter, a model, a run directory.
/// `"kind"` names it; other paths are an Error.
nlohmann::ordered_json inspect(std::filesystem::path const& path);

/// The same for people: nested keys indented, tables of numbers as lines.
std::string readable(nlohmann::ordered_json const& facts, int indent = 0);

/// One answer for a row of `fsllm_inspect MODEL_DIR --tokenize IN.jsonl`: {"text": S} → {"ids": [...]} and
/// back. `place` names the row in errors.
struct TokenizeSession {
  explicit TokenizeSession(std::filesystem::path const& model_dir);
  ~TokenizeSession();
  std::string answer(nlohmann::json const& row, std::string const& place) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fsllm

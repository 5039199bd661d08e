// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace fsllm {

/// What a path holds: a shard or folder of shards, a checkpoint, an adapter, a model, a run directory.
/// `"kind"` names it; other paths are an Error.
nlohmann::ordered_json inspect(std::filesystem::path const& path);

/// How far `global`, an adapter of LoRA, is from the mean of those in `clients` (a folder of adapters, in the
/// order of their names): ‖Σ p_k s_k B_k A_k − s B A‖_F / ‖Σ p_k s_k B_k A_k‖_F, over all modules and for
/// each; p_k = weights[k] / Σ weights, all the same where none are given.
nlohmann::ordered_json aggregation_error(std::filesystem::path const& global,
                                         std::filesystem::path const& clients,
                                         std::vector<double> const& weights);

/// Two adapters: tensors that only one holds, ‖B‖ of LoRA, and Frobenius norms of what each adds to the
/// weights (s B A, of any ranks; of other methods the tensors themselves) and of the difference, over all and
/// by layer.
nlohmann::ordered_json compare_adapters(std::filesystem::path const& a, std::filesystem::path const& b);
/// Mean loss a token of `text` by the model alone and with each adapter, "a" and "b".
nlohmann::ordered_json losses_on(std::filesystem::path const& model_dir,
                                 std::vector<std::filesystem::path> const& adapters, std::string const& text);

/// Writes the page of a run, whether it has ended or not, into its folder, or to `out` where that is not
/// empty; returns its path.
std::filesystem::path save_report(std::filesystem::path const& run, std::filesystem::path const& out);

/// What inspect() says, for people: nested keys indented, tables of numbers as lines.
std::string readable(nlohmann::ordered_json const& facts, int indent = 0);

/// inspect() for people; of a run that has begun its report (report_text).
std::string inspect_text(std::filesystem::path const& path);

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

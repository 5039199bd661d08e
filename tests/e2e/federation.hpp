// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "process.hpp"

namespace fsllm::test {

/// YAML of a small federated LoRA run on the token rows of tests/reference/federated (clients north, south,
/// west).
struct SmallRun {
  std::string model = "llama";
  std::string splits = "[1.0, 0.0, 0.0]";
  std::string optimizer = "{type: SGD, lr: 0.5}";
  std::string adapter = "{r: 4, lora_alpha: 8, target_modules: [q_proj, v_proj]}";
  std::string init_from;  ///< PEFT folder; then `adapter` is left out
  int rounds = 3, steps = 3, batch = 2;
  bool shuffle = false;
  std::string packing = "pack";
  std::string more;  ///< further YAML lines
  std::string yaml(std::filesystem::path const& outdir) const;
};

/// YAML of a run of stories260K on GSM8K's training rows by chance, LoRA in all projections, without a name;
/// needs the test data. `rest`: the keys beside these.
std::string stories_on_gsm8k(std::filesystem::path const& outdir, int tok_len, int rank,
                             std::string const& rest);

/// The run that tests/reference/federated_loop.py made `golden` (NAME.json) of.
SmallRun golden_run(nlohmann::json const& golden);
/// The adapter in `actual` is that of FOLDER/NAME.safetensors: each tensor within 1e-4 of its way from where
/// the fixture's began.
void expect_golden_adapter(std::filesystem::path const& folder, std::string const& name,
                           SmallRun const& golden, std::filesystem::path const& actual);

/// The folder of fixture NAME in tests/reference.
std::filesystem::path reference_dir(std::string const& name);

/// Models with adapters whose scores of the same requests fsllm_eval and transformers + peft (in float64)
/// must agree on.
class ScoredByPeft {
 public:
  ScoredByPeft();
  /// Is there a Python with both?
  bool possible() const { return !python_.empty(); }
  /// The vocabulary is the fixtures'; no adapter: the model alone.
  void add(std::filesystem::path const& model, std::filesystem::path const& adapter = {});
  void expect_equal(double tolerance = 1e-4);

 private:
  std::string file(std::string const& whose, size_t pair) const;
  TempDir dir_;
  std::string python_;
  std::vector<std::pair<std::string, std::string>> pairs_;
};

}  // namespace fsllm::test

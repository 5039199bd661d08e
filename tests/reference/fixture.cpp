// SPDX-License-Identifier: Apache-2.0
#include "fixture.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {

namespace fs = std::filesystem;

std::vector<std::string> reference_names() {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(source_file("tests/reference")))
    if (fs::exists(entry.path() / "golden.json")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> references_of(std::string const& family) {
  auto names = reference_names();
  std::erase_if(names, [&](auto const& name) {
    return read_json(source_file("tests/reference/" + name) / "config.json").at("model_type") != family;
  });
  return names;
}

Reference load_reference(std::string const& name) {
  Reference reference;
  reference.dir = source_file("tests/reference/" + name);
  auto const facts = read_json(reference.dir / "golden.json");
  for (auto const& row : facts.at("rows")) {
    reference.rows.push_back(row.at("ids").get<std::vector<int64_t>>());
    reference.targets.push_back(row.at("targets").get<std::vector<uint8_t>>());
  }
  facts.at("parameters").get_to(reference.parameters);
  facts.at("greedy").get_to(reference.greedy);
  facts.at("losses_sgd").get_to(reference.losses_sgd);
  facts.at("losses_adamw").get_to(reference.losses_adamw);
  facts.at("losses_full_sgd").get_to(reference.losses_full_sgd);
  reference.golden = SafetensorsReader(reference.dir / "golden.safetensors").tensors();
  return reference;
}

RaggedInput ragged(std::vector<std::vector<int64_t>> const& rows) {
  std::vector<int64_t> ids;
  RaggedInput input;
  for (auto const& row : rows) {
    ids.insert(ids.end(), row.begin(), row.end());
    input.offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  input.ids = at::tensor(ids, at::kLong);
  return input;
}

at::Tensor all_logits(CausalLM& model, std::vector<std::vector<int64_t>> const& rows) {
  at::NoGradGuard const no_grad;
  auto const input = ragged(rows);
  return model.logits(model.hidden_states(input.ids, model.pass(input)));
}

PassOptions training(uint64_t seed, int64_t rows, int64_t first_row) {
  return {.segments = {{.rows = rows, .dropout = {.seed = seed}, .first_row = first_row}}};
}

at::Tensor mean_loss(CausalLM& model, Reference const& reference, PassOptions const& options) {
  auto const input = ragged(reference.rows);
  std::vector<int64_t> positions, targets;
  for (size_t row = 0; row < reference.rows.size(); ++row)
    for (size_t i = 1; i < reference.rows[row].size(); ++i)
      if (reference.targets[row][i] != 0) {
        positions.push_back(input.offsets[row] + static_cast<int64_t>(i) - 1);
        targets.push_back(reference.rows[row][i]);
      }
  auto const pass = model.pass(input, options);
  auto const index = at::tensor(positions, at::kLong);
  auto const logits =
      model.logits(model.hidden_states(input.ids, pass).index_select(0, index), pass.at(index));
  return at::cross_entropy_loss(logits, at::tensor(targets, at::kLong));
}

void copy_model(fs::path const& from, fs::path const& to) {
  fs::create_directories(to);
  for (auto const* name : {"config.json", "model.safetensors"})
    fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing);
  fs::permissions(to / "config.json", fs::perms::owner_write, fs::perm_options::add);
  fs::permissions(to / "model.safetensors", fs::perms::owner_write, fs::perm_options::add);
}

}  // namespace fsllm::test

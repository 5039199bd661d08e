// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/blocks.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "fsllm/model/config.hpp"
#include "save.hpp"
#include "weights.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

/// Where the block's number stands in a name: [begin, end); begin is npos for none.
std::pair<size_t, size_t> place_of_block(std::string const& name) {
  for (size_t begin = 0; begin != std::string::npos;) {
    auto const end = std::min(name.find('.', begin), name.size());
    bool const number = end > begin && end - begin <= 9 &&
                        std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin),
                                    name.begin() + static_cast<std::ptrdiff_t>(end),
                                    [](char c) { return c >= '0' && c <= '9'; });
    if (number) return {begin, end};
    begin = end == name.size() ? std::string::npos : end + 1;
  }
  return {std::string::npos, std::string::npos};
}

template <class T>
std::vector<T> chosen(std::vector<T> const& all, std::vector<int64_t> const& places) {
  std::vector<T> some;
  if (!all.empty())
    for (int64_t const place : places) some.push_back(all.at(static_cast<size_t>(place)));
  return some;
}

bool differ(std::vector<int64_t> const& windows) {
  return std::adjacent_find(windows.begin(), windows.end(), std::not_equal_to<>()) != windows.end();
}

/// What config.json says of single layers, for these.
void choose_layers(Json& json, ModelConfig const& model, std::vector<int64_t> const& blocks) {
  for (auto const* key : {"num_hidden_layers", "n_layer", "num_layers"})
    if (json.contains(key)) json[key] = blocks.size();
  auto const windows = chosen(model.layer_windows, blocks);
  if (json.contains("attention_types")) {  // GPT-Neo
    auto types = Json::array(), layers = Json::array();
    for (int64_t const window : windows) {
      layers.push_back(window > 0 ? "local" : "global");
      types.push_back({{layers.back()}, 1});
    }
    json["attention_types"] = types;
    if (json.contains("attention_layers")) json["attention_layers"] = layers;
  } else if (json.contains("layer_types") && json["layer_types"].is_array()) {
    json["layer_types"] = chosen(json["layer_types"].get<std::vector<Json>>(), blocks);
  } else if (differ(model.layer_windows)) {  // by a rule over the layers' numbers
    auto types = Json::array();
    for (int64_t const window : windows) types.push_back(window > 0 ? "sliding_attention" : "full_attention");
    json["layer_types"] = types;
  }
}

/// Buffers of old files have types that weights have not.
at::ScalarType type_of(detail::WeightSource const& source, std::string const& name) {
  return source.mapped() ? source.tensor(name).scalar_type() : detail::stored_type(source, name, {});
}

/// Tensors of the copy, and those of the source that they come from ("" where they are replaced).
struct Plan {
  std::vector<SafetensorsWriter::Entry> entries;
  std::map<std::string, std::string> from;
};

Plan plan_copy(detail::WeightSource const& source, std::string const& dropped,
               std::vector<int64_t> const& blocks, TensorMap const& replaced) {
  Plan plan;
  std::map<int64_t, std::vector<int64_t>> places;
  for (size_t i = 0; i < blocks.size(); ++i) places[blocks[i]].push_back(static_cast<int64_t>(i));
  auto const add = [&](std::string const& to, std::string const& from) {
    auto const other = replaced.find(to);
    if (other != replaced.end())
      plan.entries.push_back({to, other->second.scalar_type(), other->second.sizes().vec()});
    else
      plan.entries.push_back({to, type_of(source, from), source.shape(from)});
    plan.from.emplace(to, other != replaced.end() ? "" : from);
  };
  for (auto const& name : source.names()) {
    if (!source.contains(name) || name == dropped) continue;
    auto const block = block_of(name);
    if (block < 0) add(name, name);
    for (int64_t const place : places[block]) add(with_block(name, place), name);
  }
  for (auto const& [name, tensor] : replaced)
    if (!plan.from.contains(name)) fail_internal(__FILE__, __LINE__, "no tensor to replace: " + name);
  return plan;
}

void write_description(std::filesystem::path const& source, ModelConfig const& model,
                       std::vector<int64_t> const& blocks, int64_t vocab_size,
                       std::filesystem::path const& out) {
  auto json = detail::description_of(source);
  if (is_gguf(source)) json["dtype"] = detail::torch_name(at::kFloat);
  json.erase("quantization_config");  // the copy is plain
  choose_layers(json, model, blocks);
  json["vocab_size"] = vocab_size;
  write_file_atomic(out / "config.json", json.dump(2) + "\n");
  auto expected = model;
  expected.num_layers = std::ssize(blocks);
  expected.layer_windows = chosen(model.layer_windows, blocks);
  expected.vocab_size = vocab_size;
  if (load_model_config(out) != expected)
    fail_internal(__FILE__, __LINE__, "config.json of some blocks of a " + model.family + " model");
}

}  // namespace

int64_t block_of(std::string const& name) {
  auto const [begin, end] = place_of_block(name);
  int64_t block = -1;
  if (begin != std::string::npos) std::from_chars(name.data() + begin, name.data() + end, block);
  return block;
}

std::string with_block(std::string const& name, int64_t block) {
  auto const [begin, end] = place_of_block(name);
  if (begin == std::string::npos) return name;
  return name.substr(0, begin) + std::to_string(block) + name.substr(end);
}

void copy_blocks(std::filesystem::path const& source_path, std::vector<int64_t> const& blocks,
                 TensorMap const& replaced, std::filesystem::path const& out, TensorChange const& change) {
  auto const model = load_model_config(source_path);
  auto const& family = detail::find_family(model.family, source_path.string());
  auto const source = is_gguf(source_path) ? detail::open_gguf(source_path, model, family)
                                           : detail::open_safetensors(source_path);
  auto const is_embedding = [&](std::string const& name) {
    return name.ends_with(family.embedding + ".weight") && block_of(name) < 0;
  };
  bool const other_embedding = std::any_of(replaced.begin(), replaced.end(),
                                           [&](auto const& each) { return is_embedding(each.first); });
  // Files may hold a tied head too, which would be the old one.
  bool const drops_head = model.tied_embeddings && other_embedding;
  auto const plan = plan_copy(*source, drops_head ? family.head + ".weight" : "", blocks, replaced);
  detail::make_result_folder(out);
  detail::copy_files(out, source_path);
  SafetensorsWriter writer(out / "model.safetensors", plan.entries, {{"format", "pt"}}, 64);
  int64_t vocab_size = model.vocab_size;
  for (auto const& entry : writer.order()) {
    auto const& from = plan.from.at(entry.name);
    auto const values = from.empty() ? replaced.at(entry.name) : source->tensor(from);
    writer.write(change && !from.empty() ? change(entry.name, values) : values);
    if (is_embedding(entry.name)) vocab_size = entry.shape.front();
  }
  writer.commit();
  write_description(source_path, model, blocks, vocab_size, out);
}

}  // namespace fsllm

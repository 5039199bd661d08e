// SPDX-License-Identifier: Apache-2.0
#include "text_fixture.hpp"

#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

constexpr int kRows = 60;

void write_lines(std::filesystem::path const& path, json const& rows) {
  std::ofstream file(path);
  for (auto const& row : rows) file << row.dump() << "\n";
}

/// `kRows` rows; `fill` gives row i.
template <class Fill>
json rows_of(Fill const& fill) {
  auto rows = json::array();
  for (int i = 0; i < kRows; ++i) rows.push_back(fill(i));
  return rows;
}

}  // namespace

json small_tokenizer() {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>", "\u0120", "\u010a"};
  for (char const c : std::string("#:.,'?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
    tokens.emplace_back(1, c);
  json vocab;
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  auto const special = [&](int id) {
    return json{{"id", id},
                {"content", tokens[static_cast<size_t>(id)]},
                {"single_word", false},
                {"lstrip", false},
                {"rstrip", false},
                {"normalized", false},
                {"special", true}};
  };
  json const byte_level{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  return {{"version", "1.0"},
          {"added_tokens", {special(0), special(1), special(2)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
}

void write_text_model(std::filesystem::path const& dir, int positions) {
  std::filesystem::create_directories(dir);
  for (auto const* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(reference_dir("llama") / name, dir / name);
  std::ofstream(dir / "tokenizer.json") << small_tokenizer().dump();
  if (positions == 0) return;
  auto config = nlohmann::json::parse(read_text(dir / "config.json"));
  config["max_position_embeddings"] = positions;
  std::ofstream(dir / "config.json") << config.dump();
}

void write_data_sets(std::filesystem::path const& dir) {
  std::filesystem::create_directories(dir);
  auto const question = [](int i) { return "What is " + std::to_string(i) + "?"; };
  auto const answer = [](int i) { return "It is " + std::to_string(i) + "."; };
  std::ofstream(dir / "alpaca_data.json") << rows_of([&](int i) {
    return json{{"instruction", question(i)}, {"input", i % 2 == 0 ? "" : "now"}, {"output", answer(i)}};
  });
  write_lines(dir / "databricks-dolly-15k.jsonl", rows_of([&](int i) {
                return json{{"instruction", question(i)},
                            {"context", ""},
                            {"response", answer(i)},
                            {"category", "kind " + std::to_string(i % 8)}};
              }));
  write_lines(dir / "gsm8k_train.jsonl", rows_of([&](int i) {
                return json{{"question", question(i)}, {"answer", "Count.\n#### " + std::to_string(i)}};
              }));
  for (std::string const language : {"python", "javascript", "java", "ruby", "php", "go"}) {
    auto const folder = dir / language / "final/jsonl/train";
    std::filesystem::create_directories(folder);
    write_lines(folder / (language + "_train_0.jsonl"), rows_of([&](int i) {
                  return json{{"docstring", question(i)}, {"code", answer(i)}, {"language", language}};
                }));
  }
  std::ofstream(dir / "rosetta_alpaca.json") << rows_of([&](int i) {
    return json{
        {"instruction", question(i)}, {"input", "Language " + std::to_string(i % 9)}, {"output", answer(i)}};
  });
}

}  // namespace fsllm::test

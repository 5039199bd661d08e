// SPDX-License-Identifier: Apache-2.0
// One way to spoil a file, and how a run must answer; shared by the tables of damaged files.
#pragma once
#include <fmt/core.h>

#include <fstream>
#include <functional>

#include "bad_input.hpp"
#include "fsllm/io/h5.hpp"
#include "fsllm/io/shard.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {

namespace fs = std::filesystem;
using nlohmann::json;

struct Damage {
  std::string name;
  std::function<void(fs::path const&)> work;  ///< on a folder with model/, data/, adapter/, shards/
  std::string message;                        ///< DIR stands for that folder
  std::vector<std::string> overrides = {};
  int np = 0;
};

inline void write(fs::path const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Changes one JSON file.
inline std::function<void(fs::path const&)> json_edit(std::string const& file,
                                                      std::function<void(json&)> const& edit) {
  return [=](fs::path const& dir) {
    auto document = json::parse(read_text(dir / file));
    edit(document);
    write(dir / file, document.dump());
  };
}

inline std::function<void(fs::path const&)> text_edit(std::string const& file, std::string const& from,
                                                      std::string const& to) {
  return [=](fs::path const& dir) {
    auto bytes = read_text(dir / file);
    auto const at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write(dir / file, bytes.replace(at, from.size(), to));
  };
}

inline std::function<void(fs::path const&)> content(std::string const& file, std::string const& bytes) {
  return [=](fs::path const& dir) { write(dir / file, bytes); };
}

/// As content(), in place of tokenizer.json.
inline std::function<void(fs::path const&)> sentencepiece(std::string const& bytes) {
  return [=](fs::path const& dir) {
    fs::remove(dir / "model/tokenizer.json");
    write(dir / "model/tokenizer.model", bytes);
  };
}

inline std::string yaml(fs::path const& dir) {
  return fmt::format(
      "outdir: {0}\nexpname: run\nmodel: {{type: {0}/model}}\n"
      "data: {{root: {0}/data, type: alpaca@llm, splitter: iid, splits: [0.8, 0.2, 0.0]}}\n"
      "federate: {{client_num: 3, total_round_num: 1}}\ntrain: {{local_update_steps: 1}}\n"
      "llm: {{tok_len: 48, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8}}]}}}}\n",
      dir.string());
}

inline void prepare(fs::path const& dir) {
  write_text_model(dir / "model");
  write_data_sets(dir / "data");
  fs::copy(reference_dir("llama") / "adapter", dir / "adapter");
}

inline void expect_refused(Damage const& damage, fs::path const& dir) {
  auto const config = write_config(dir, yaml(dir)).string();
  std::vector<std::string> words{"fsllm_hpc", "--cfg", config};
  auto message = damage.message;
  auto const in_dir = [&](std::string text) {
    if (auto const at = text.find("DIR"); at != std::string::npos) text.replace(at, 3, dir.string());
    return text;
  };
  for (auto const& word : damage.overrides) words.push_back(in_dir(word));
  expect_message(run(dir, damage.np, words), in_dir(message));
  EXPECT_FALSE(fs::exists(dir / "run/config.yaml")) << "what failed before training holds no run";
}

/// Damages nothing.
inline void keep(fs::path const&) {}

}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
// Where a model lies: a path, or a name in a folder of models or in a cache of the Hugging Face hub.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "fsllm/app/run_config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/paths.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// The hub's caches of this user (huggingface_hub constants.py), which are read and never written.
std::vector<fs::path> hub_caches() {
  auto const variable = [](char const* name) {
    char const* value = std::getenv(name);
    return value == nullptr || *value == '\0' ? std::string() : expand_path(value, name);
  };
  if (auto const cache = variable("HF_HUB_CACHE"); !cache.empty()) return {cache};
  if (auto const home = variable("HF_HOME"); !home.empty()) return {fs::path(home) / "hub"};
  auto const shared = variable("XDG_CACHE_HOME");
  auto const home = variable("HOME");
  if (!shared.empty()) return {fs::path(shared) / "huggingface/hub"};
  return home.empty() ? std::vector<fs::path>{}
                      : std::vector<fs::path>{fs::path(home) / ".cache/huggingface/hub"};
}

/// "acme/tiny" → models--acme--tiny.
std::string hub_folder(std::string const& name) {
  std::string folder = "models--";
  for (char const c : name) folder += c == '/' ? "--" : std::string(1, c);
  return folder;
}

/// The snapshot that refs/main names, or the only one; "" where the folder is not there.
fs::path snapshot_in(fs::path const& folder, std::string const& model_type) {
  if (!fs::is_directory(folder / "snapshots")) return {};
  std::vector<fs::path> snapshots;
  for (auto const& entry : fs::directory_iterator(folder / "snapshots"))
    if (entry.is_directory()) snapshots.push_back(entry.path());
  if (fs::exists(folder / "refs/main")) {
    auto commit = read_file(folder / "refs/main");
    commit.erase(commit.find_last_not_of(" \n\r\t") + 1);
    auto const main = folder / "snapshots" / fs::path(commit).filename();
    FSLLM_CHECK(
        !commit.empty() && fs::is_directory(main),
        "model.type = '{}' ({} names the snapshot '{}', which is not in {}). Download the model again, "
        "or set model.type to the folder of another snapshot.",
        model_type, (folder / "refs/main").string(), commit, (folder / "snapshots").string());
    return main;
  }
  FSLLM_CHECK(snapshots.size() == 1,
              "model.type = '{}' ({} holds {} snapshots, and there is no refs/main). Set model.type to the "
              "folder of one of them.",
              model_type, (folder / "snapshots").string(), snapshots.size());
  return snapshots.front();
}

}  // namespace

fs::path resolve_model(RunConfig const& run) {
  auto name = run.model_type.substr(0, run.model_type.find('@'));
  // A file of a Hugging Face folder stands for the folder.
  if (auto const file = fs::path(name);
      fs::is_regular_file(file) && (file.extension() == ".safetensors" || file.filename() == "config.json" ||
                                    file.filename() == "model.safetensors.index.json"))
    name = file.has_parent_path() ? file.parent_path().string() : ".";
  std::vector<fs::path> places, caches;
  if (!run.model_cache.empty()) {
    places.push_back(fs::path(run.model_cache) / name);
    places.push_back(fs::path(run.model_cache) / fs::path(name).filename());
    caches.emplace_back(run.model_cache);
    caches.push_back(fs::path(run.model_cache) / "hub");
  }
  places.emplace_back(name);
  for (auto const& place : places)
    if (fs::is_directory(place) || fs::is_regular_file(place)) {
      auto const found = fs::canonical(place);
      FSLLM_CHECK(
          fs::is_directory(found) || is_gguf(found),
          "model.type = '{}' (neither a folder in Hugging Face layout nor a .gguf file). Name the folder "
          "that holds config.json and the weights, or a .gguf file.",
          run.model_type);
      FSLLM_CHECK(!fs::is_directory(found) || fs::exists(found / "config.json") ||
                      !fs::exists(found / "adapter_config.json"),
                  "model.type = '{}' (an adapter, not a model). Name the base model, and the adapter by "
                  "llm.adapter.init_from or --adapter.",
                  run.model_type);
      return found;
    }
  std::ranges::copy(hub_caches(), std::back_inserter(caches));
  bool const may_be_name = !name.empty() && name.front() != '/' && std::ranges::count(name, '/') <= 1;
  for (auto const& cache : caches)
    if (auto const found = may_be_name ? snapshot_in(cache / hub_folder(name), run.model_type) : fs::path();
        !found.empty())
      return fs::canonical(found);
  fail(fmt::format(
      "model.type = '{}' (no folder {}). Put the model there (config.json, model.safetensors, "
      "tokenizer.json or tokenizer.model; or a .gguf file), "
      "or set llm.cache.model to the folder that holds it, which may be a cache of the Hugging Face "
      "hub ({}/snapshots); nothing is downloaded.",
      run.model_type, places.front().string(), hub_folder(name)));
}

}  // namespace fsllm

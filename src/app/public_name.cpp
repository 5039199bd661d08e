// SPDX-License-Identifier: Apache-2.0
#include "public_name.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Is it a file's name, which people leave in config.json's _name_or_path?
bool names_file(std::string const& name) {
  static constexpr std::array kEndings{".json", ".gguf", ".bin", ".safetensors", ".pt", ".pth", ".ckpt"};
  return std::ranges::any_of(kEndings, [&](char const* ending) { return name.ends_with(ending); });
}

bool is_public(std::string const& name) {
  std::error_code ignored;
  return is_hub_name(name) && !names_file(name) && !fs::exists(name, ignored);
}

/// ".../models--acme--tiny/snapshots/..." → "acme/tiny", as a cache of the hub names its folders.
std::string name_in_cache(fs::path const& model) {
  std::string const prefix = "models--";
  for (auto const& part : model) {
    auto const folder = part.string();
    if (!folder.starts_with(prefix)) continue;
    auto const name = folder.substr(prefix.size());
    auto const dashes = name.find("--");
    return dashes == std::string::npos ? name : name.substr(0, dashes) + '/' + name.substr(dashes + 2);
  }
  return "";
}

/// "https://huggingface.co/acme/tiny" → "acme/tiny".
std::string name_in_url(std::string const& url) {
  auto const scheme = url.find("://");
  auto const slash = url.find('/', scheme == std::string::npos ? 0 : scheme + 3);
  return slash == std::string::npos ? "" : url.substr(slash + 1);
}

std::string text_of(nlohmann::json const& object, std::string const& key) {
  auto const found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// "Tiny Llama 2" → "Tiny-Llama-2"; "" where no name of a hub comes of it.
std::string as_name(std::string title) {
  for (auto& c : title)
    if (!is_hub_name(std::string("a") + c)) c = '-';
  title.erase(0, title.find_first_not_of("-."));
  return is_hub_name(title) ? title : "";
}

std::string name_in_metadata(nlohmann::json const& metadata) {
  auto const text = [&](char const* key) { return text_of(metadata, key); };
  for (auto const& name :
       {text("general.source.huggingface.repository"), name_in_url(text("general.source.url")),
        name_in_url(text("general.repo_url")), name_in_url(text("general.base_model.0.repo_url"))})
    if (is_public(name)) return name;
  for (auto const& title : {text("general.name"), text("general.basename")})
    if (title.find_first_of("/\\") == std::string::npos && !as_name(title).empty()) return as_name(title);
  return "";
}

std::string last_part(fs::path const& model) {
  auto const whole = fs::weakly_canonical(model);
  auto const name = as_name((is_gguf(model) ? whole.stem() : whole.filename()).string());
  return name.empty() ? "model" : name;
}

/// `license:` between the lines "---" that a model card begins with.
std::string license_in_card(fs::path const& card) {
  if (!fs::exists(card)) return "";
  std::istringstream lines(read_file(card));
  std::string line;
  if (!std::getline(lines, line) || !line.starts_with("---")) return "";
  std::string const key = "license:";
  while (std::getline(lines, line) && !line.starts_with("---")) {
    if (!line.starts_with(key)) continue;
    auto value = line.substr(key.size());
    std::erase_if(value, [](unsigned char c) { return std::isspace(c) || c == '"' || c == '\''; });
    return is_hub_name(value) ? value : "other";
  }
  return "";
}

std::string license_in_text(std::string const& text) {
  struct Known {
    char const* words;
    char const* name;
  };
  static constexpr Known kKnown[] = {{"Apache License", "apache-2.0"},
                                     {"MIT License", "mit"},
                                     {"LLAMA 2 COMMUNITY LICENSE", "llama2"},
                                     {"META LLAMA 3 COMMUNITY LICENSE", "llama3"},
                                     {"LLAMA 3.1 COMMUNITY LICENSE", "llama3.1"},
                                     {"LLAMA 3.2 COMMUNITY LICENSE", "llama3.2"}};
  auto const beginning = text.substr(0, 2000);
  for (auto const& [words, name] : kKnown)
    if (beginning.find(words) != std::string::npos) return name;
  return "other";
}

}  // namespace

bool is_hub_name(std::string const& name) {
  auto const good = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  auto const slash = std::min(name.find('/'), name.size());
  auto const is_part = [&](std::string const& part) {
    return !part.empty() && part.front() != '.' && part.front() != '-' && std::ranges::all_of(part, good);
  };
  return is_part(name.substr(0, slash)) && (slash == name.size() || is_part(name.substr(slash + 1)));
}

std::string public_name(fs::path const& model, std::string const& chosen) {
  if (!chosen.empty()) return chosen;
  if (auto const name = name_in_cache(model); is_hub_name(name)) return name;
  if (is_gguf(model)) {
    auto const name = name_in_metadata(GgufReader(model).metadata());
    return name.empty() ? last_part(model) : name;
  }
  auto const config = model / "config.json";
  auto const name = fs::exists(config) ? text_of(read_json(config), "_name_or_path") : "";
  return is_public(name) ? name : last_part(model);
}

std::string license_of(fs::path const& model) {
  if (is_gguf(model)) {
    auto const name = text_of(GgufReader(model).metadata(), "general.license");
    return name.empty() || is_hub_name(name) ? name : "other";
  }
  if (auto const name = license_in_card(model / "README.md"); !name.empty()) return name;
  for (auto const* file : {"LICENSE", "LICENSE.txt", "LICENSE.md"})
    if (fs::is_regular_file(model / file)) return license_in_text(read_file(model / file));
  return "";
}

}  // namespace fsllm

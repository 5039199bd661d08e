// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "ruled_tokenizer.hpp"
#include "tiktoken.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Names in a model folder, and under which they are written.
constexpr std::pair<char const*, char const*> kFiles[] = {
    {"tokenizer.json", "tokenizer.json"},
    {"tokenizer.model", "tokenizer.model"},
    {"encoder.json", "vocab.json"},
    {"vocab.json", "vocab.json"},
    {"vocab.bpe", "merges.txt"},
    {"merges.txt", "merges.txt"},
    {"added_tokens.json", "added_tokens.json"},
    {"tokenizer_config.json", "tokenizer_config.json"},
    {"special_tokens_map.json", "special_tokens_map.json"},
    {"chat_template.jinja", "chat_template.jinja"}};

/// Written name → file of the folder.
std::map<std::string, fs::path> tokenizer_files(fs::path const& model) {
  std::map<std::string, fs::path> files;
  for (auto const& [name, written] : kFiles)
    if (fs::exists(model / name)) files[written] = model / name;
  return files;
}

std::string template_of_gguf(fs::path const& model) {
  auto const metadata = GgufReader(model).metadata();
  auto const found = metadata.find("tokenizer.chat_template");
  return found != metadata.end() && found->is_string() ? found->get<std::string>() : "";
}

/// An object, which may be missing.
Json object_in(fs::path const& file) {
  return fs::exists(file) ? Json::parse(read_file(file)) : Json::object();
}

void write_object(fs::path const& file, Json const& document) {
  write_file_atomic(file, document.dump(2) + "\n");
}

Json entry_of(AddedToken const& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

/// `entries` with the rules' tokens; the packages number them in their order in the file, so that is by id.
void merge_entries(Json& entries, std::vector<AddedToken> const& added) {
  for (auto const& token : added) {
    auto const known = std::find_if(entries.begin(), entries.end(),
                                    [&](auto const& entry) { return entry.at("content") == token.content; });
    if (known == entries.end()) {
      entries.push_back(entry_of(token));
    } else {
      bool const special = token.special || known->value("special", false);
      auto flags = entry_of(token);
      flags.erase("id");
      if (!token.only_id) known->update(flags);
      if (special) (*known)["special"] = true;
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](auto const& a, auto const& b) {
    return a.at("id").template get<int64_t>() < b.at("id").template get<int64_t>();
  });
}

/// tokenizer.json's list, or what tokenizer_config.json keeps in its place.
Json all_entries(fs::path const& dir, Json const& config, std::vector<AddedToken> const& added) {
  Json entries = Json::array();
  auto const file = dir / "tokenizer.json";
  if (fs::exists(file)) {
    auto document = Json::parse(read_file(file));
    if (document.contains("added_tokens") && document["added_tokens"].is_array())
      entries = document["added_tokens"];
    merge_entries(entries, added);
    document["added_tokens"] = entries;
    write_object(file, document);
    return entries;
  }
  if (auto const decoder = config.find("added_tokens_decoder"); decoder != config.end())
    for (auto const& [id, entry] : decoder->items()) {
      entries.push_back(entry);
      entries.back()["id"] = std::stoll(id);
    }
  merge_entries(entries, added);
  if (auto const model = dir / "tokenizer.model"; fs::exists(model))
    if (auto const content = read_file(model); is_tiktoken(content))
      merge_entries(entries, tiktoken_specials(tiktoken_ranks(content), added));
  auto ids = object_in(dir / "added_tokens.json");
  for (auto const& token : added) ids[token.content] = token.id;
  write_object(dir / "added_tokens.json", ids);
  return entries;
}

/// Roles by name, those too that only the ids of config.json give.
void write_roles(Json& document, RuledTokenizer const& ruled) {
  auto const& tokenizer = *ruled.tokenizer;
  auto const& rules = ruled.rules;
  auto const write = [&](char const* role, std::optional<std::string> const& name,
                         std::optional<int32_t> id) {
    if (!name && !id) return;
    auto const content = name ? *name : tokenizer.decode({*id});
    auto const old = document.find(role);
    if (old != document.end() &&
        (*old == content || (old->is_object() && old->value("content", "") == content)))
      return;
    document[role] = content;
  };
  write("bos_token", rules.bos, tokenizer.bos_id());
  write("eos_token", rules.eos, tokenizer.eos_id());
  write("pad_token", rules.pad, tokenizer.pad_id());
  write("unk_token", rules.unk, std::nullopt);
}

char const* usual_class(fs::path const& dir) {
  auto const model = dir / "tokenizer.model";
  if (fs::exists(dir / "tokenizer.json")) return "PreTrainedTokenizerFast";
  if (!fs::exists(model)) return "GPT2Tokenizer";
  return is_tiktoken(read_file(model)) ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
}

/// What transformers' classes would otherwise decide: tokenizer.json says it all, other files do not.
void write_class(Json& config, Tokenizer const& tokenizer, fs::path const& dir) {
  if (!config.contains("tokenizer_class")) config["tokenizer_class"] = usual_class(dir);
  if (fs::exists(dir / "tokenizer.json")) return;
  auto const empty = tokenizer.encode("");
  if (!config.contains("add_bos_token"))
    config["add_bos_token"] = !empty.empty() && empty.front() == tokenizer.bos_id();
  if (!config.contains("add_eos_token")) config["add_eos_token"] = false;
  if (!fs::exists(dir / "tokenizer.model"))
    for (auto const* role : {"bos_token", "eos_token", "unk_token"})
      if (!config.contains(role)) config[role] = nullptr;
}

}  // namespace

void save_tokenizer(fs::path const& model, TokenAdditions const& additions, fs::path const& out_dir) {
  if (is_gguf(model)) export_gguf_tokenizer(model, out_dir);
  for (auto const& [written, file] : tokenizer_files(model))
    write_file_atomic(out_dir / written, read_file(file));
  auto ruled = load_ruled_tokenizer(model, additions);
  for (auto& token : ruled.rules.added)
    token.id = ruled.tokenizer->token_id(token.content).value_or(token.id);
  auto config = object_in(out_dir / "tokenizer_config.json");
  auto const entries = all_entries(out_dir, config, ruled.rules.added);
  auto decoder = Json::object();
  for (auto entry : entries) {
    auto const id = std::to_string(entry.at("id").get<int64_t>());
    entry.erase("id");
    decoder[id] = std::move(entry);
  }
  if (!decoder.empty()) config["added_tokens_decoder"] = std::move(decoder);
  write_roles(config, ruled);
  write_class(config, *ruled.tokenizer, out_dir);
  write_object(out_dir / "tokenizer_config.json", config);
  auto map = object_in(out_dir / "special_tokens_map.json");
  write_roles(map, ruled);
  write_object(out_dir / "special_tokens_map.json", map);
}

void copy_tokenizer(fs::path const& model, fs::path const& out_dir) {
  for (auto const& [written, file] : tokenizer_files(model))
    write_file_atomic(out_dir / written, read_file(file));
  if (!is_gguf(model)) return;
  if (auto const chat = template_of_gguf(model); !chat.empty())
    write_file_atomic(out_dir / "chat_template.jinja", chat);
}

bool is_tokenizer_copy(fs::path const& dir, fs::path const& model) {
  auto const here = tokenizer_files(dir), there = tokenizer_files(model);
  return std::ranges::equal(here, there, [](auto const& a, auto const& b) {
    return a.first == b.first && fs::file_size(a.second) == fs::file_size(b.second) &&
           read_file(a.second) == read_file(b.second);
  });
}

}  // namespace fsllm

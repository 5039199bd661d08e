// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/gguf_tokenizer.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "known_words.hpp"
#include "sentencepiece_model.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using ModelPiece = SentencePieceModel::Piece;

/// The tokenizer's part of the metadata, with types checked.
class Vocabulary {
 public:
  Vocabulary(json const& metadata, std::string const& where) : metadata_(metadata), where_(where) {}
  [[noreturn]] void refuse(std::string const& key, std::string const& why) const {
    fail(fmt::format("{}: tokenizer.ggml.{} {}. Convert the model again.", where_, key, why));
  }
  json const* find(std::string const& key) const {
    auto const found = metadata_.find("tokenizer.ggml." + key);
    return found == metadata_.end() ? nullptr : &*found;
  }
  std::string text(std::string const& key, std::string const& fallback) const {
    auto const* value = find(key);
    if (value != nullptr && !value->is_string()) refuse(key, "is not a text");
    return value == nullptr ? fallback : value->get<std::string>();
  }
  std::optional<bool> flag(std::string const& key) const {
    auto const* value = find(key);
    if (value != nullptr && !value->is_boolean()) refuse(key, "is not a boolean");
    return value == nullptr ? std::nullopt : std::optional(value->get<bool>());
  }
  /// A list with an entry for each token; null where absent.
  json const* list(std::string const& key, size_t size, bool (json::*is_right)() const noexcept) const {
    auto const* values = find(key);
    if (values == nullptr) return nullptr;
    if (!values->is_array()) refuse(key, "is not a list");
    if (size != 0 && values->size() != size)
      refuse(key, fmt::format("has {} entries for {} tokens", values->size(), size));
    for (auto const& value : *values)
      if (!(value.*is_right)()) refuse(key, "holds an entry of another type");
    return values;
  }
  std::optional<int32_t> id(std::string const& name, size_t size) const {
    auto const key = name + "_token_id";
    auto const* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer() || value->get<int64_t>() < -1 ||
        value->get<int64_t>() >= static_cast<int64_t>(size))
      refuse(key, fmt::format("is {} ({} tokens)", value->dump(), size));
    return value->get<int64_t>() < 0 ? std::nullopt : std::optional(value->get<int32_t>());
  }
  std::vector<ModelPiece> pieces() const {
    auto const* tokens = list("tokens", 0, &json::is_string);
    if (tokens == nullptr || tokens->empty()) refuse("tokens", "is missing");
    auto const* types = list("token_type", tokens->size(), &json::is_number_integer);
    auto const* scores = list("scores", tokens->size(), &json::is_number);
    std::vector<ModelPiece> pieces;
    std::set<std::string_view> seen;
    for (size_t i = 0; i < tokens->size(); ++i) {
      auto const& text = (*tokens)[i].get_ref<std::string const&>();
      if (!seen.insert(text).second) refuse("tokens", fmt::format("holds '{}' twice", text));
      auto const type = types == nullptr ? int64_t{SentencePieceModel::normal} : (*types)[i].get<int64_t>();
      if (type < SentencePieceModel::normal || type > SentencePieceModel::byte)
        refuse("token_type", fmt::format("of token {} is {}", i, type));
      pieces.push_back({text, scores == nullptr ? 0 : (*scores)[i].get<float>(), static_cast<int>(type)});
    }
    return pieces;
  }

 private:
  json const& metadata_;
  std::string const& where_;
};

SpecialTokenRules read_rules(Vocabulary const& vocabulary, std::vector<ModelPiece> const& pieces,
                             bool add_bos) {
  SpecialTokenRules rules;
  auto const take = [&](char const* name, std::optional<std::string>& token, std::optional<int32_t>* id) {
    auto const found = vocabulary.id(name, pieces.size());
    if (id != nullptr) *id = found;
    if (found) token = pieces[static_cast<size_t>(*found)].text;
  };
  take("bos", rules.bos, &rules.bos_id);
  take("eos", rules.eos, &rules.eos_id);
  take("padding", rules.pad, &rules.pad_id);
  take("unknown", rules.unk, nullptr);
  rules.add_bos = vocabulary.flag("add_bos_token").value_or(add_bos);
  rules.add_eos = vocabulary.flag("add_eos_token").value_or(false);
  return rules;
}

/// The names that old converters left out, where the architecture tells.
std::string words_of(Vocabulary const& vocabulary, json const& metadata) {
  auto const pre = vocabulary.text("pre", "default");
  auto const architecture = metadata.value("general.architecture", json(""));
  bool const told = pre == "default" && (architecture == "gpt2" || architecture == "qwen2");
  return told ? architecture.get<std::string>() : pre;
}

/// SentencePiece has one unknown piece; other tokens that a file marks so are special ones.
void keep_one_unknown(std::vector<ModelPiece>& pieces, SpecialTokenRules& rules) {
  if (!rules.unk) rules.unk = pieces.front().text;
  for (auto& piece : pieces) {
    if (piece.type == SentencePieceModel::unknown) piece.type = SentencePieceModel::control;
    if (piece.text == *rules.unk) piece.type = SentencePieceModel::unknown;
  }
}

json byte_level_document(Vocabulary const& vocabulary, std::vector<ModelPiece> const& pieces,
                         KnownWords const& words) {
  auto const* merges = vocabulary.list("merges", 0, &json::is_string);
  if (merges == nullptr) vocabulary.refuse("merges", "is missing");
  json vocab = json::object(), added = json::array();
  for (size_t id = 0; id < pieces.size(); ++id) {
    auto const& [text, score, type] = pieces[id];
    vocab[text] = id;
    bool const special = type == SentencePieceModel::control || type == SentencePieceModel::unknown;
    if (special || type == SentencePieceModel::user_defined)
      added.push_back({{"id", id},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", special}});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", words.normalizer},
          {"pre_tokenizer", words.pre_tokenizer},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", words.ignore_merges},
            {"vocab", std::move(vocab)},
            {"merges", *merges}}}};
}

}  // namespace

GgufTokenizer read_gguf_tokenizer(json const& metadata, std::string const& where) {
  Vocabulary const vocabulary(metadata, where);
  auto const model = vocabulary.text("model", "");
  GgufTokenizer tokenizer;
  auto const text_of = [&](char const* name) {
    auto const found = metadata.find(name);
    return found != metadata.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  tokenizer.chat_template = text_of("tokenizer.chat_template");
  if (model == "gpt2") {
    auto const pieces = vocabulary.pieces();
    auto const words = known_words(words_of(vocabulary, metadata), where + ": tokenizer.ggml.pre");
    tokenizer.rules = read_rules(vocabulary, pieces, words.add_bos);
    tokenizer.file_name = "tokenizer.json";
    tokenizer.content =
        byte_level_document(vocabulary, pieces, words).dump(-1, ' ', false, json::error_handler_t::replace);
  } else if (model == "llama") {
    SentencePieceModel spm;
    spm.pieces = vocabulary.pieces();
    if (vocabulary.find("scores") == nullptr) vocabulary.refuse("scores", "is missing");
    tokenizer.rules = read_rules(vocabulary, spm.pieces, true);
    keep_one_unknown(spm.pieces, tokenizer.rules);
    spm.model_type = SentencePieceModel::bpe;
    spm.add_dummy_prefix = vocabulary.flag("add_space_prefix").value_or(true);
    spm.remove_extra_whitespaces = vocabulary.flag("remove_extra_whitespaces").value_or(false);
    tokenizer.file_name = "tokenizer.model";
    tokenizer.content = serialize(spm, tokenizer.rules);
  } else {
    fail(fmt::format(
        "{}: tokenizer.ggml.model = '{}' (not a vocabulary of this version: gpt2, llama). Use the "
        "model's Hugging Face files.",
        where, model));
  }
  tokenizer.rules.model_type = text_of("general.architecture");
  return tokenizer;
}

void export_gguf_tokenizer(std::filesystem::path const& gguf, std::filesystem::path const& out_dir) {
  GgufReader const reader(gguf);
  if (!reader.metadata().contains("tokenizer.ggml.model")) return;
  auto const tokenizer = read_gguf_tokenizer(reader.metadata(), gguf.string());
  bool const bytes = tokenizer.file_name == "tokenizer.json";
  auto const& rules = tokenizer.rules;
  nlohmann::ordered_json config{{"tokenizer_class", bytes ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
                                {"add_bos_token", *rules.add_bos},
                                {"add_eos_token", *rules.add_eos},
                                {"clean_up_tokenization_spaces", false}};
  if (!bytes) config["legacy"] = false;
  if (rules.bos) config["bos_token"] = *rules.bos;
  if (rules.eos) config["eos_token"] = *rules.eos;
  if (rules.pad) config["pad_token"] = *rules.pad;
  if (rules.unk) config["unk_token"] = *rules.unk;
  if (!tokenizer.chat_template.empty()) config["chat_template"] = tokenizer.chat_template;
  write_file_atomic(out_dir / tokenizer.file_name, tokenizer.content);
  write_file_atomic(out_dir / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/gguf_vocabulary.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/token_additions.hpp"
#include "gpt2_files.hpp"
#include "known_words.hpp"
#include "ruled_tokenizer.hpp"
#include "sentencepiece_model.hpp"
#include "tiktoken.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using ModelPiece = SentencePieceModel::Piece;

/// Names that llama.cpp has for ways of cutting text into words.
constexpr std::array kNames{"llama-bpe", "smollm", "gpt-2", "qwen2"};

/// A part of tokenizer.json with what it leaves out, and without what does not change ids.
json plain(json part) {
  if (!part.is_object()) return part;
  part.erase("trim_offsets");
  auto const type = part.value("type", "");
  if (type == "ByteLevel") {
    part.emplace("use_regex", true);
    part.emplace("add_prefix_space", true);
  }
  if (type == "Split") part.emplace("invert", false);
  auto const steps = part.find("pretokenizers");
  if (steps == part.end()) return part;
  for (auto& step : *steps) step = plain(step);
  return steps->size() == 1 ? steps->front() : part;
}

std::string name_of_words(json const& document, fs::path const& source) {
  auto const part = [&](char const* name) { return plain(document.value(name, json())); };
  for (auto const* name : kNames) {
    auto const words = known_words(name, "tokenizer.ggml.pre");
    if (part("pre_tokenizer") == plain(words.pre_tokenizer) &&
        part("normalizer") == plain(words.normalizer) &&
        document.at("model").value("ignore_merges", false) == words.ignore_merges)
      return name;
  }
  fail(
      fmt::format("{}: its pre_tokenizer, {}, is not one that this version knows by a name of llama.cpp "
                  "({}). Export with --to merged, and convert that with llama.cpp's own script.",
                  source.string(), document.value("pre_tokenizer", json()).dump(), fmt::join(kNames, ", ")));
}

void take(std::vector<ModelPiece>& pieces, int64_t id, std::string const& text, int type) {
  if (id < 0 || id > 10'000'000) return;
  if (std::cmp_greater_equal(id, pieces.size())) pieces.resize(static_cast<size_t>(id) + 1);
  auto& piece = pieces[static_cast<size_t>(id)];
  piece.text = text;
  piece.type = type;
}

int type_of(AddedToken const& token) {
  return token.special ? SentencePieceModel::control : SentencePieceModel::user_defined;
}

/// Byte-level BPE of tokenizer.json, or of the document that GPT-2's two files stand for.
std::vector<ModelPiece> byte_level_pieces(json const& document, ordered_json& keys, fs::path const& source) {
  auto const& model = document.at("model");
  bool const in_bytes = !model.value("byte_fallback", false);
  auto const kind = in_bytes ? model.value("type", "BPE") : "BPE with byte_fallback";
  FSLLM_CHECK(kind == "BPE",
              "{}: tokenizer.json is of the kind {} (llama.cpp has byte-level BPE and SentencePiece). Put "
              "tokenizer.model beside it, or export with --to merged.",
              source.string(), kind);
  keys["tokenizer.ggml.model"] = "gpt2";
  keys["tokenizer.ggml.pre"] = name_of_words(document, source);
  auto merges = ordered_json::array();
  for (auto const& merge : model.at("merges"))
    merges.push_back(merge.is_string()
                         ? merge.get<std::string>()
                         : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
  keys["tokenizer.ggml.merges"] = std::move(merges);
  std::vector<ModelPiece> pieces;
  for (auto const& [text, id] : model.at("vocab").items())
    take(pieces, id.get<int64_t>(), text, SentencePieceModel::normal);
  if (auto const added = document.find("added_tokens"); added != document.end())
    for (auto const& token : *added)
      take(pieces, token.at("id").get<int64_t>(), token.at("content").get<std::string>(),
           token.value("special", false) ? SentencePieceModel::control : SentencePieceModel::user_defined);
  return pieces;
}

std::vector<ModelPiece> sentencepiece_pieces(std::string const& content, ordered_json& keys,
                                             fs::path const& source) {
  auto const model = parse_sentencepiece_model(content);
  FSLLM_CHECK(model.model_type == SentencePieceModel::bpe && !is_tiktoken(content),
              "{}: tokenizer.model holds no BPE of SentencePiece (llama.cpp's \"llama\" vocabulary is one). "
              "Export with --to merged.",
              source.string());
  keys["tokenizer.ggml.model"] = "llama";
  keys["tokenizer.ggml.pre"] = "default";
  keys["tokenizer.ggml.add_space_prefix"] = model.add_dummy_prefix;
  keys["tokenizer.ggml.remove_extra_whitespaces"] = model.remove_extra_whitespaces;
  return model.pieces;
}

/// `tokenizer.json` of a folder with tokenizer.model beside it is often the same SentencePiece BPE.
bool is_sentencepiece(fs::path const& source) {
  if (!fs::exists(source / "tokenizer.model")) return false;
  if (!fs::exists(source / "tokenizer.json")) return true;
  auto const document = read_json(source / "tokenizer.json");
  return document.contains("model") && document.at("model").value("byte_fallback", false);
}

json byte_level_document(fs::path const& source, SpecialTokenRules const& rules) {
  if (fs::exists(source / "tokenizer.json")) return read_json(source / "tokenizer.json");
  auto const files = *find_gpt2_files(source);
  return gpt2_document(read_json(files.vocabulary), read_file(files.merges), rules, files.merges.string());
}

std::string chat_template_of(fs::path const& source) {
  if (fs::exists(source / "chat_template.jinja")) return read_file(source / "chat_template.jinja");
  if (!fs::exists(source / "tokenizer_config.json")) return "";
  auto const config = read_json(source / "tokenizer_config.json");
  auto const found = config.find("chat_template");
  return found != config.end() && found->is_string() ? found->get<std::string>() : "";
}

void add_lists(ordered_json& keys, std::vector<ModelPiece> const& pieces, bool with_scores) {
  auto tokens = ordered_json::array(), types = ordered_json::array(), scores = ordered_json::array();
  for (auto const& piece : pieces) {
    tokens.push_back(piece.text);
    types.push_back(int32_t{piece.type});
    scores.push_back(piece.score);
  }
  keys["tokenizer.ggml.tokens"] = std::move(tokens);
  keys["tokenizer.ggml.token_type"] = std::move(types);
  if (with_scores) keys["tokenizer.ggml.scores"] = std::move(scores);
}

void add_roles(ordered_json& keys, Tokenizer const& tokenizer, SpecialTokenRules const& rules) {
  auto const add = [&](char const* role, std::optional<int32_t> id) {
    if (id) keys[fmt::format("tokenizer.ggml.{}_token_id", role)] = static_cast<uint32_t>(*id);
  };
  add("bos", tokenizer.bos_id());
  add("eos", tokenizer.eos_id());
  add("padding", tokenizer.pad_id());
  if (rules.unk) add("unknown", tokenizer.token_id(*rules.unk));
  auto const around = tokenizer.encode("");
  keys["tokenizer.ggml.add_bos_token"] = !around.empty() && around.front() == tokenizer.bos_id();
  keys["tokenizer.ggml.add_eos_token"] = !around.empty() && around.back() == tokenizer.eos_id();
}

ordered_json of_gguf(fs::path const& source) {
  auto keys = ordered_json::object();
  GgufReader const reader(source);
  for (auto const& [key, value] : reader.metadata().items())
    if (key.starts_with("tokenizer.")) keys[key] = value;
  return keys;
}

}  // namespace

ordered_json gguf_vocabulary(fs::path const& source, int64_t rows) {
  if (is_gguf(source)) return of_gguf(source);
  auto const ruled = load_ruled_tokenizer(source, {});
  auto keys = ordered_json::object();
  bool const sentencepiece = is_sentencepiece(source);
  auto pieces = sentencepiece ? sentencepiece_pieces(read_file(source / "tokenizer.model"), keys, source)
                              : byte_level_pieces(byte_level_document(source, ruled.rules), keys, source);
  for (auto const& token : ruled.rules.added)
    take(pieces, ruled.tokenizer->token_id(token.content).value_or(-1), token.content, type_of(token));
  FSLLM_CHECK(std::cmp_less_equal(pieces.size(), rows),
              "{}: {} tokens (the model has {} embeddings). Use the tokenizer that belongs to the model.",
              source.string(), pieces.size(), rows);
  pieces.resize(static_cast<size_t>(rows), {"", 0, SentencePieceModel::unused});
  for (size_t id = 0; id < pieces.size(); ++id)
    if (pieces[id].text.empty()) pieces[id] = {fmt::format("[PAD{}]", id), 0, SentencePieceModel::unused};
  add_lists(keys, pieces, sentencepiece);
  add_roles(keys, *ruled.tokenizer, ruled.rules);
  if (auto const chat = chat_template_of(source); !chat.empty()) keys["tokenizer.chat_template"] = chat;
  return keys;
}

}  // namespace fsllm

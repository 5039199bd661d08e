// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <tuple>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/files.hpp"
#include "sentencepiece_model.hpp"

namespace fsllm {
namespace {

// A ModelProto that says { normalizer_spec { add_dummy_prefix: false } }. Appended to a serialised model it
// changes just that, because protobuf merges what follows into what came before.
constexpr std::string_view kNoPrefix("\x1A\x02\x18\x00", 4);

void load(sentencepiece::SentencePieceProcessor& processor, std::string const& model,
          std::string const& where) {
  auto const status = processor.LoadFromSerializedProto(model);
  auto const why = is_lfs_pointer(model) ? std::string(kLfsPointer)
                   : model.empty()       ? std::string("it is empty")
                                         : fmt::format("{} bytes that do not parse", model.size());
  FSLLM_CHECK(status.ok(),
              "{}: not a SentencePiece model ({}). Copy the file again, or give tokenizer.json instead.",
              where, why);
}

std::optional<int32_t> known(int id) {
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace

struct SentencePieceTokenizer::Processors {
  sentencepiece::SentencePieceProcessor first,
      following;  ///< for the text's begin, for text behind a special token
};

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

SentencePieceTokenizer::SentencePieceTokenizer(std::string const& model, SpecialTokenRules const& rules,
                                               std::string const& sha256, std::string const& where)
    : add_bos_(rules.add_bos.value_or(true)), add_eos_(rules.add_eos.value_or(false)), sha256_(sha256) {
  legacy_ = rules.legacy;
  auto processors = std::make_unique<Processors>();
  bool const prefix = rules.add_prefix_space.value_or(true);
  load(processors->first, prefix ? model : model + std::string(kNoPrefix), where);
  load(processors->following, model + std::string(kNoPrefix), where);
  processors_ = std::move(processors);
  auto const parsed = parse_sentencepiece_model(model);
  if (parsed.is_plain_bpe()) {
    bpe_ = std::make_unique<Bpe const>(parsed);
    add_dummy_prefix_ = parsed.add_dummy_prefix && prefix;
  }
  auto const& sp = processors_->first;
  clean_up_ = rules.clean_up && (rules.clean_up_bpe || parsed.model_type != SentencePieceModel::bpe);
  read_specials(rules);
  bos_ = rules.bos ? token_id(*rules.bos) : known(sp.bos_id());
  eos_ = rules.eos ? token_id(*rules.eos) : known(sp.eos_id());
  pad_ = rules.pad ? token_id(*rules.pad) : known(sp.pad_id());
}

/// Control symbols of the model, and tokens that other files add to it.
void SentencePieceTokenizer::read_specials(SpecialTokenRules const& rules) {
  auto const& sp = processors_->first;
  std::vector<AddedToken> specials;
  for (int id = 0; id < sp.GetPieceSize(); ++id)
    if (sp.IsControl(id) || sp.IsUnknown(id))
      specials.push_back({id, sp.IdToPiece(id), true, false, false, false, false});
  for (auto token : rules.added) {
    auto const id = token_id(token.content);
    // Two files may list the same token.
    if ((id && added_.contains(*id)) || added_.contains(token.id)) continue;
    if (id && is_special(*id)) {
      auto const own =
          std::find_if(specials.begin(), specials.end(), [&](auto const& t) { return t.id == *id; });
      if (!token.only_id) std::tie(own->lstrip, own->rstrip) = std::tie(token.lstrip, token.rstrip);
      continue;
    }
    if (!id && token.id < sp.GetPieceSize()) continue;  // the model has another text there
    token.id = id.value_or(token.id);
    added_.emplace(token.id, token);
    specials.push_back(token);
  }
  auto next = static_cast<int32_t>(vocab_size());
  for (auto token : rules.further) {
    auto const id = token_id(token.content);
    if (id && (added_.contains(*id) || is_special(*id))) continue;
    token.id = id ? *id : next++;
    added_.emplace(token.id, token);
    specials.push_back(token);
  }
  std::vector<std::string> contents;
  for (auto const& token : specials) contents.push_back(token.content);
  specials_ = AddedTokenMatcher(std::move(specials), contents);
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  return processors_->first.IsControl(id) || processors_->first.IsUnknown(id);
}

int64_t SentencePieceTokenizer::vocab_size() const {
  int64_t const pieces = processors_->first.GetPieceSize();
  return added_.empty() ? pieces : std::max<int64_t>(pieces, added_.rbegin()->first + 1);
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text, bool add_special_tokens) const {
  auto lease = pool_.borrow();
  auto& memory = *lease;
  text = valid_utf8(text, memory.valid);
  memory.parts.clear();
  specials_.split(text, 0, text.size(), memory.parts);
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = prefix();
  for (auto const& part : memory.parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_chunk(text.substr(part.begin, part.end - part.begin), legacy_ || part.begin == 0, ids, memory);
    }
  }
  if (add_special_tokens && add_eos_ && eos_) ids.push_back(*eos_);
  return ids;
}

void SentencePieceTokenizer::encode_chunk(std::string_view text, bool at_start, std::vector<int32_t>& ids,
                                          Memory& memory) const {
  if (bpe_) {
    memory.text.assign(add_dummy_prefix_ && at_start ? kVisibleSpace : "");
    for (char const c : text) {
      if (c == ' ') {
        memory.text.append(kVisibleSpace);
      } else {
        memory.text.push_back(c);
      }
    }
    return bpe_->encode(memory.text, ids, memory.bpe);
  }
  auto const& processor = at_start ? processors_->first : processors_->following;
  auto const status = processor.Encode({text.data(), text.size()}, &memory.chunk);
  FSLLM_CHECK(status.ok(), "SentencePiece could not encode {} bytes ({}). Shorten the text.", text.size(),
              status.ToString());
  ids.insert(ids.end(), memory.chunk.begin(), memory.chunk.end());
}

std::string SentencePieceTokenizer::decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const {
  std::string text;
  std::vector<int> chunk;
  bool first = true;
  auto const flush = [&] {
    if (!chunk.empty()) text += (first ? processors_->first : processors_->following).DecodeIds(chunk);
    first = first && chunk.empty();
    chunk.clear();
  };
  for (int32_t const id : ids) {
    auto const added = added_.find(id);
    if (added == added_.end() && (id < 0 || id >= processors_->first.GetPieceSize())) continue;
    bool const symbol = added != added_.end() || processors_->first.IsControl(id);
    bool const skipped =
        skip_special_tokens && (added != added_.end() ? added->second.special : is_special(id));
    if (skipped) continue;
    if (!symbol) {
      chunk.push_back(id);
      continue;
    }
    flush();
    text += added != added_.end() ? added->second.content : processors_->first.IdToPiece(id);
    first = false;
  }
  flush();
  return clean_up_ ? clean_up_spaces(std::move(text)) : text;
}

std::optional<int32_t> SentencePieceTokenizer::token_id(std::string_view token) const {
  auto const& sp = processors_->first;
  int const id = sp.PieceToId({token.data(), token.size()});
  if (!sp.IsUnknown(id) || sp.IdToPiece(id) == token) return id;
  for (auto const& [added_id, added] : added_)
    if (added.content == token) return added_id;
  return std::nullopt;
}

std::string SentencePieceTokenizer::piece(int32_t id) const {
  auto const added = added_.find(id);
  if (added != added_.end()) return added->second.special ? "" : added->second.content;
  if (id < 0 || id >= processors_->first.GetPieceSize() || is_special(id)) return "";
  std::string text = processors_->first.IdToPiece(id);
  if (processors_->first.IsByte(id)) return {static_cast<char>(byte_of_token(text))};
  return replace_all(text, kVisibleSpace, " ");
}

}  // namespace fsllm

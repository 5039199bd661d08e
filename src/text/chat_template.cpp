// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// A text, or a list of {"name", "template"} of which "default" is taken.
std::string from_config(nlohmann::json const& value, std::string const& where) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  std::string names;
  if (value.is_array())
    for (auto const& entry : value) {
      if (!entry.is_object() || !entry.contains("name") || !entry.contains("template")) continue;
      if (entry.at("name") == "default" && entry.at("template").is_string())
        return entry.at("template").get<std::string>();
      names += " " + entry.at("name").dump();
    }
  fail(
      fmt::format("{}: chat_template is no text and has none named \"default\" (it has:{}). Give one with "
                  "data.chat_template.",
                  where, names.empty() ? " none" : names));
}

ordered_json variables_of(Tokenizer const& tokenizer) {
  ordered_json variables{{"tools", nullptr}, {"documents", nullptr}};
  auto const add = [&](char const* name, std::optional<int32_t> id) {
    if (id) variables[name] = tokenizer.decode({*id});
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("pad_token", tokenizer.pad_id());
  return variables;
}

std::vector<ChatMessage> messages_of(Sample const& sample) {
  if (sample.kind == SampleKind::chat) return sample.messages;
  auto const gap = sample.input.empty() ? "" : "\n\n";
  return {{"user", sample.instruction + gap + sample.input}, {"assistant", sample.output}};
}

/// One chat under a template, as a whole and in beginnings.
class ChatText {
 public:
  ChatText(JinjaTemplate const& chat, std::vector<ChatMessage> const& messages, Tokenizer const& tokenizer)
      : chat_(chat), messages_(messages), variables_(variables_of(tokenizer)) {
    whole_ = render(messages.size(), false);
  }

  std::vector<Segment> segments() const {
    auto spans = whole_.generated.empty() ? spans_by_beginnings() : whole_.generated;
    std::vector<Segment> pieces;
    size_t at = 0;
    for (auto const& [begin, end] : spans) {
      if (begin > at) pieces.push_back({whole_.text.substr(at, begin - at), false});
      pieces.push_back({whole_.text.substr(begin, end - begin), true});
      at = end;
    }
    if (at < whole_.text.size()) pieces.push_back({whole_.text.substr(at), false});
    return pieces;
  }

 private:
  JinjaTemplate::Output render(size_t count, bool generation_prompt) const {
    auto variables = variables_;
    auto& list = variables["messages"] = ordered_json::array();
    for (size_t i = 0; i < count; ++i)
      list.push_back({{"role", messages_[i].role}, {"content", messages_[i].content}});
    variables["add_generation_prompt"] = generation_prompt;
    return chat_.render(variables);
  }

  std::vector<std::pair<size_t, size_t>> spans_by_beginnings() const {
    std::vector<std::pair<size_t, size_t>> spans;
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (messages_[i].role != "assistant") continue;
      size_t const begin = i == 0 ? length_of_head() : length_of(i, true), end = length_of(i + 1, false);
      spans.emplace_back(begin, std::max(begin, end_of_turn(begin, end)));
    }
    return spans;
  }

  /// Blanks behind the end-of-turn token are not learnt.
  size_t end_of_turn(size_t begin, size_t end) const {
    auto const turn = std::string_view(whole_.text).substr(begin, end - begin);
    return begin + turn.find_last_not_of(" \t\r\n") + 1;
  }

  /// A chat that begins with an answer: what stands before it is not known, so all of it is learnt.
  size_t length_of_head() const { return 0; }

  size_t length_of(size_t count, bool generation_prompt) const {
    auto const text = count == messages_.size() ? whole_.text : render(count, generation_prompt).text;
    FSLLM_CHECK(
        whole_.text.starts_with(text),
        "the chat template renders the first {} messages in another way once more follow (so the answers "
        "cannot be told from the rest). Give rows of one answer, mark answers by {{% generation %}} in a "
        "template of data.chat_template, or choose a named one such as chatml.",
        count);
    return text.size();
  }

  JinjaTemplate const& chat_;
  std::vector<ChatMessage> const& messages_;
  ordered_json variables_;
  JinjaTemplate::Output whole_;
};

}  // namespace

std::string read_chat_template(std::string const& model) {
  if (model.empty()) return "";
  fs::path const path = model;
  if (is_gguf(path)) {
    auto const metadata = GgufReader(path).metadata();
    auto const found = metadata.find("tokenizer.chat_template");
    return found == metadata.end() ? "" : from_config(*found, model);
  }
  if (fs::exists(path / "chat_template.jinja")) return read_file(path / "chat_template.jinja");
  auto const config = path / "tokenizer_config.json";
  if (!fs::exists(config)) return "";
  auto const document = read_json(config);
  return document.is_object() && document.contains("chat_template")
             ? from_config(document.at("chat_template"), config.string())
             : "";
}

std::vector<Segment> chat_segments(PromptTemplate const& prompt, Sample const& sample,
                                   Tokenizer const& tokenizer) {
  auto const messages = messages_of(sample);
  return ChatText(*prompt.chat, messages, tokenizer).segments();
}

}  // namespace fsllm

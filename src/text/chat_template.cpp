// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

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
  return sample.kind == SampleKind::chat ? sample.messages : messages_of_instruction(sample);
}

JinjaTemplate::Output render_chat(JinjaTemplate const& chat, std::span<ChatMessage const> messages,
                                  ordered_json variables, bool generation_prompt) {
  auto& list = variables["messages"] = ordered_json::array();
  for (auto const& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  variables["add_generation_prompt"] = generation_prompt;
  return chat.render(variables);
}

size_t length_without_blanks(std::string_view text) {
  return text.find_last_not_of(" \t\r\n") + 1;
}

/// One chat under a template, as a whole and in beginnings.
class ChatText {
 public:
  ChatText(JinjaTemplate const& chat, std::vector<ChatMessage> messages, ordered_json variables)
      : chat_(chat), messages_(std::move(messages)), variables_(std::move(variables)) {
    whole_ = render(messages_.size(), false);
  }

  std::vector<Segment> segments() const {
    auto spans = whole_.generated.empty() ? spans_by_beginnings() : marked_spans();
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
    return render_chat(chat_, {messages_.data(), count}, variables_, generation_prompt);
  }

  /// What the template marks, without the answers that are not learnt.
  std::vector<std::pair<size_t, size_t>> marked_spans() const {
    std::vector<bool> learnt;
    for (auto const& message : messages_)
      if (message.role == "assistant") learnt.push_back(message.learnt);
    if (std::find(learnt.begin(), learnt.end(), false) == learnt.end()) return whole_.generated;
    FSLLM_CHECK(
        learnt.size() == whole_.generated.size(),
        "the chat template marks {} parts by {{% generation %}} for {} answers, some of which are not to "
        "be learnt (which parts are theirs is not known). Choose a named template such as chatml.",
        whole_.generated.size(), learnt.size());
    std::vector<std::pair<size_t, size_t>> spans;
    for (size_t i = 0; i < learnt.size(); ++i)
      if (learnt[i]) spans.push_back(whole_.generated[i]);
    return spans;
  }

  /// An answer reaches from where the generation prompt before it ends to where the turns up to it end. Where
  /// the template renders these in another way once more follow (Qwen3 drops old reasoning), it is what its
  /// content became, with what ends the turn.
  std::vector<std::pair<size_t, size_t>> spans_by_beginnings() const {
    std::vector<std::pair<size_t, size_t>> spans;
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (messages_[i].role != "assistant" || !messages_[i].learnt) continue;
      // What stands before a chat that begins with an answer is not known, so all of it is learnt.
      auto const begin = i == 0 ? size_t{0} : length_of(i, true), end = length_of(i + 1, false);
      if (begin && end) {
        spans.emplace_back(*begin, std::max(*begin, end_of_turn(*begin, *end)));
        continue;
      }
      auto const content = content_of(i);
      spans.emplace_back(begin.value_or(content.first),
                         end ? end_of_turn(content.first, *end) : content.second);
    }
    return spans;
  }

  /// Blanks behind the end-of-turn token are not learnt.
  size_t end_of_turn(size_t begin, size_t end) const {
    return begin + length_without_blanks(std::string_view(whole_.text).substr(begin, end - begin));
  }

  /// Where the first `count` messages end in the whole; nothing if they are not its beginning.
  std::optional<size_t> length_of(size_t count, bool generation_prompt) const {
    if (count == messages_.size()) return whole_.text.size();
    auto const text = render(count, generation_prompt).text;
    return whole_.text.starts_with(text) ? std::optional(text.size()) : std::nullopt;
  }

  /// Where the content of answer i stands in the whole, found by putting a mark in its place, and the end of
  /// the turn: the text behind the mark where no message follows.
  std::pair<size_t, size_t> content_of(size_t i) const {
    auto const marked = split_at_mark(i, messages_.size()), alone = split_at_mark(i, i + 1);
    auto const& whole = whole_.text;
    bool const found = marked && alone && whole.size() >= marked->first.size() + marked->second.size() &&
                       whole.starts_with(marked->first) && whole.ends_with(marked->second);
    auto const begin = found ? marked->first.size() : 0,
               end = found ? whole.size() - marked->second.size() : 0;
    auto const tail = found ? alone->second.substr(0, length_without_blanks(alone->second)) : "";
    FSLLM_CHECK(
        found && std::string_view(whole).substr(end).starts_with(tail),
        "the chat template hides where answer {} of the chat is (what it makes of it depends on other "
        "messages). Give rows of one answer, mark answers by {{% generation %}} in a template of "
        "data.chat_template, or choose a named one such as chatml.",
        std::count_if(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                      [](ChatMessage const& message) { return message.role == "assistant"; }));
    return {begin, end + tail.size()};
  }

  /// The first `count` messages before and behind the content of message i.
  std::optional<std::pair<std::string, std::string>> split_at_mark(size_t i, size_t count) const {
    std::string const mark = "\uE000\uE001\uE000";
    auto marked = messages_;
    marked[i].content = mark;
    auto const text =
        ChatText(chat_, {marked.begin(), marked.begin() + static_cast<std::ptrdiff_t>(count)}, variables_)
            .whole_.text;
    auto const at = text.find(mark);
    if (at == std::string::npos || text.find(mark, at + 1) != std::string::npos) return std::nullopt;
    return std::pair(text.substr(0, at), text.substr(at + mark.size()));
  }

  JinjaTemplate const& chat_;
  std::vector<ChatMessage> messages_;
  ordered_json variables_;
  JinjaTemplate::Output whole_;
};

}  // namespace

std::vector<ChatMessage> messages_of_instruction(Sample const& sample) {
  auto const gap = sample.input.empty() ? "" : "\n\n";
  return {{"user", sample.instruction + gap + sample.input}, {"assistant", sample.output}};
}

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
  return ChatText(*prompt.chat, messages_of(sample), variables_of(tokenizer)).segments();
}

std::string chat_prompt(PromptTemplate const& prompt, std::vector<ChatMessage> const& messages,
                        Tokenizer const& tokenizer) {
  return render_chat(*prompt.chat, messages, variables_of(tokenizer), true).text;
}

}  // namespace fsllm

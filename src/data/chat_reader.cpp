// SPDX-License-Identifier: Apache-2.0
#include "chat_reader.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <span>

#include "json_fields.hpp"
#include "row_fields.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

struct RoleName {
  char const *in_file, *role;
};

constexpr RoleName kChatRoles[] = {{"system", "system"}, {"user", "user"}, {"assistant", "assistant"}};
constexpr RoleName kShareGptRoles[] = {{"system", "system"},     {"human", "user"},
                                       {"user", "user"},         {"gpt", "assistant"},
                                       {"chatgpt", "assistant"}, {"assistant", "assistant"}};

/// How one way to write chats names its fields and roles.
struct ChatForm {
  char const *role, *content;
  std::span<RoleName const> roles;
};

ChatForm const kMessages{"role", "content", kChatRoles};
ChatForm const kConversations{"from", "value", kShareGptRoles};

std::string read_turn(json const& turn, ChatForm const& form, ChatMessage& message) {
  if (!turn.is_object()) return fmt::format("is not an object but a JSON {}", turn.type_name());
  std::string name;
  if (auto why = read_text(turn, form.role, name); !why.empty()) return why;
  if (auto why = refuse_fields(turn, kRefusedTurnFields); !why.empty()) return why;
  if (auto why = read_text(turn, form.content, message.content); !why.empty()) return why;
  std::string known;
  for (auto const& role : form.roles) {
    if (name == role.in_file) message.role = role.role;
    known += (known.empty() ? "" : ", ") + std::string(role.in_file);
  }
  if (message.role.empty()) return fmt::format("{} = '{:.40}' is none of {}", form.role, name, known);
  auto why = read_learnt(turn, message.learnt);
  if (why.empty() && message.role != "assistant" && message.learnt && has_learnt(turn))
    why = fmt::format("a turn of {} is to be learnt (answers alone are)", message.role);
  return why;
}

std::string read_turns(json const& list, std::string const& field, ChatForm const& form,
                       std::vector<ChatMessage>& messages) {
  if (!list.is_array())
    return fmt::format("field '{}' is not a list of messages but a JSON {}", field, list.type_name());
  if (list.empty()) return fmt::format("field '{}' is an empty list", field);
  for (size_t i = 0; i < list.size(); ++i) {
    ChatMessage message;
    if (auto const why = read_turn(list[i], form, message); !why.empty())
      return fmt::format("{}[{}]: {}", field, i, why);
    messages.push_back(std::move(message));
  }
  return "";
}

}  // namespace

std::string read_messages(json const& row, Sample& sample) {
  sample.kind = SampleKind::chat;
  return read_turns(row.at("messages"), "messages", kMessages, sample.messages);
}

std::string read_conversations(json const& row, Sample& sample) {
  sample.kind = SampleKind::chat;
  return read_turns(row.at("conversations"), "conversations", kConversations, sample.messages);
}

std::string read_preference_messages(json const& row, Sample& sample, std::vector<ChatMessage>& rejected) {
  sample.kind = SampleKind::chat;
  std::string why;
  if (auto const prompt = row.find("prompt"); prompt != row.end() && !prompt->is_null())
    why = read_turns(*prompt, "prompt", kMessages, sample.messages);
  if (why.empty()) why = read_turns(row.at("chosen"), "chosen", kMessages, sample.messages);
  if (why.empty()) why = read_turns(row.at("rejected"), "rejected", kMessages, rejected);
  if (why.empty()) sample.rejected = rejected.back().content;
  return why;
}

std::string read_preference(json const& row, Sample& sample) {
  if (!row.contains("rejected")) return missing_field(row, "rejected");
  std::vector<ChatMessage> rejected;
  if (row.at("chosen").is_array()) return read_preference_messages(row, sample, rejected);
  auto why = read_text(row, "prompt", sample.instruction);
  if (why.empty()) why = read_text(row, "chosen", sample.output);
  if (why.empty()) why = read_text(row, "rejected", sample.rejected);
  return why;
}

}  // namespace fsllm

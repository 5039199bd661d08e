// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fsllm {

/// One turn of a chat. Roles: system, user, assistant.
struct ChatMessage {
  std::string role, content;
  bool learnt = true;  ///< no: an answer that stands there without being scored
};

enum class SampleKind {
  instruction,  ///< instruction, input, output; the output is scored
  chat,         ///< messages; the assistant's turns are scored
  text,         ///< output alone, scored as a whole
  tokens,       ///< ids and is_target
};

/// One training example before tokenisation.
struct Sample {
  SampleKind kind = SampleKind::instruction;
  std::string instruction, input, output;
  std::vector<ChatMessage> messages;
  std::string rejected;  ///< preference rows: the worse answer, beside the chosen one
  std::string category;  ///< "" for none; LDA and meta split by it
  std::string owner;     ///< value of the field, or the file, that splitters natural and by_file go by
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
  std::vector<int32_t> rejected_ids;  ///< pairs of token rows: the worse one
  std::vector<uint8_t> rejected_is_target;
  std::string place;   ///< "file:line", for messages
  int64_t record = 0;  ///< number of its record among all records of the data set, bad ones too
};

/// An instruction with its answer as two turns.
std::vector<ChatMessage> messages_of_instruction(Sample const& sample);

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/jinja/jinja.hpp"
#include "fsllm/text/sample.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// A row of the table: a function that writes everything before the answer, or a chat template in Jinja.
struct NamedTemplate {
  std::string (*prompt)(Sample const&) = nullptr;
  char const* chat = nullptr;
};
/// A new template is one more row here. `custom` and `model` have neither: they come from the user and from
/// the model's files.
std::vector<Row<NamedTemplate>> const& prompt_templates();

/// Keys `data.prompt_template`, `data.custom_template`, `data.chat_template`: which template, and where its
/// text is.
struct TemplateConfig {
  std::string name = "alpaca";                        ///< a row of prompt_templates()
  std::string custom_prompt, custom_prompt_no_input;  ///< of `custom`
  std::string chat_template;         ///< file that is used instead of the model's chat template
  std::string chat_text;             ///< the template itself, in the place of either
  std::string date = kTemplateDate;  ///< that strftime_now gives
  std::string model;                 ///< folder or GGUF file, for its chat template
};

/// A piece of a sample's text; scored pieces are what the model is to learn.
struct Segment {
  std::string text;
  bool scored = false;
};

/// `data.prompt_template`, ready for use by several threads.
struct PromptTemplate {
  std::string name;  ///< as shards name it; with a hash where the name alone does not say what it is
  std::string (*prompt)(Sample const&) = nullptr;
  std::string with_input, without_input;      ///< of `custom`
  std::shared_ptr<JinjaTemplate const> chat;  ///< chat templates write BOS and end-of-turn tokens themselves
};

/// The template that `config` asks for. An unknown name, a template outside of the subset, and a model
/// without one are Errors.
PromptTemplate make_prompt_template(TemplateConfig const& config);

/// `config` with the text of the template in it, whatever file it came from: what travels beside adapters and
/// shards.
TemplateConfig self_contained(TemplateConfig config);
/// {"name", and what the name alone does not say: "custom_template" or "chat_template" and "template_date"}.
nlohmann::ordered_json to_json(TemplateConfig const& self_contained);
/// Errors begin with `place`.
TemplateConfig template_from_json(nlohmann::json const& json, std::string const& place);

/// Everything before the answer of an instruction; not for chat templates.
std::string prompt_text(PromptTemplate const& prompt, Sample const& sample);

/// A chat (or an instruction as a chat of two turns) in pieces. Scored are the assistant's turns up to and
/// with their end-of-turn token: what a template marks by {% generation %}, else what each turn adds to the
/// rendered turns before it (as TRL finds it), else, where a template renders turns in another way once more
/// follow, what its content became. An answer that cannot be found is an Error.
std::vector<Segment> chat_segments(PromptTemplate const& prompt, Sample const& sample,
                                   Tokenizer const& tokenizer);

/// A chat as a text that the next answer follows; chat templates alone. BOS is in the text where the template
/// writes it.
std::string chat_prompt(PromptTemplate const& prompt, std::vector<ChatMessage> const& messages,
                        Tokenizer const& tokenizer);

/// The chat template beside a model: chat_template.jinja, or `chat_template` of tokenizer_config.json (one,
/// or the one named "default"), or GGUF metadata. "" where there is none.
std::string read_chat_template(std::string const& model);

}  // namespace fsllm

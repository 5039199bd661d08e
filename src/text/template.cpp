// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/template.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "chat_templates.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

/// Stanford Alpaca's prompts, word for word (Taori et al. 2023); no input, no "### Input:".
std::string alpaca(Sample const& sample) {
  if (sample.input.empty())
    return fmt::format(
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n"
        "### Instruction:\n{}\n\n### Response:",
        sample.instruction);
  return fmt::format(
      "Below is an instruction that describes a task, paired with an input that provides further context. "
      "Write a "
      "response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### "
      "Response:",
      sample.instruction, sample.input);
}

/// The instruction and the input, a line each: few tokens around short rows.
std::string plain(Sample const& sample) {
  return sample.instruction + "\n" + (sample.input.empty() ? "" : sample.input + "\n");
}

/// The user's template with its {instruction}, {input} and {category} filled in; {{ and }} are braces.
std::string fill(std::string const& pattern, Sample const& sample) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    char const c = pattern[i];
    if ((c == '{' || c == '}') && i + 1 < pattern.size() && pattern[i + 1] == c) {
      out += c;
      ++i;
    } else if (c != '{') {
      FSLLM_CHECK(c != '}',
                  "data.custom_template: a }} that closes nothing (a brace is written twice). Correct it.");
      out += c;
    } else {
      size_t const end = std::min(pattern.find('}', i), pattern.size());
      auto const name = pattern.substr(i + 1, end - i - 1);
      FSLLM_CHECK(
          end < pattern.size() && (name == "instruction" || name == "input" || name == "category"),
          "data.custom_template: {{{:.40}}} (known are {{instruction}}, {{input}} and {{category}}; a brace "
          "is written twice). Correct it.",
          name);
      out += name == "instruction" ? sample.instruction : name == "input" ? sample.input : sample.category;
      i = end;
    }
  }
  return out;
}

PromptTemplate custom(TemplateConfig const& config) {
  FSLLM_CHECK(
      !config.custom_prompt.empty(),
      "data.prompt_template = custom (data.custom_template.prompt is not set). Write the template there, "
      "with {{instruction}} and {{input}}.");
  PromptTemplate made;
  made.with_input = config.custom_prompt;
  made.without_input =
      config.custom_prompt_no_input.empty() ? config.custom_prompt : config.custom_prompt_no_input;
  for (auto const* pattern : {&made.with_input, &made.without_input}) {
    fill(*pattern, {});
    FSLLM_CHECK(pattern->find("{instruction}") != std::string::npos,
                "data.custom_template: a template without {{instruction}} (the model would not see the "
                "task). Add it.");
  }
  made.name = "custom:" + sha256(made.with_input + '\0' + made.without_input).substr(0, 8);
  return made;
}

std::string chat_source(TemplateConfig const& config) {
  if (!config.chat_text.empty()) return config.chat_text;
  return config.chat_template.empty() ? read_chat_template(config.model) : read_file(config.chat_template);
}

PromptTemplate of_model(TemplateConfig const& config) {
  auto const source = chat_source(config);
  FSLLM_CHECK(
      !source.empty(),
      "data.prompt_template = model ({} has no chat template). Give a Jinja file with data.chat_template, or "
      "choose a named template such as chatml.",
      config.model.empty() ? "the model" : config.model);
  PromptTemplate made;
  bool const dated = config.date != kTemplateDate && source.find("strftime_now") != std::string::npos;
  made.name = "model:" + sha256(dated ? source + '\0' + config.date : source).substr(0, 8);
  auto const place = config.chat_template.empty() ? config.model + " (chat template)" : config.chat_template;
  made.chat = std::make_shared<JinjaTemplate>(source, place, config.date);
  return made;
}

}  // namespace

std::vector<Row<NamedTemplate>> const& prompt_templates() {
  static std::vector<Row<NamedTemplate>> const rows{
      {"alpaca", {alpaca}, "Stanford Alpaca's prompt, with or without input"},
      {"plain", {plain}, "instruction and input, a line each"},
      {"chatml", {nullptr, kChatMl}, "chat: <|im_start|>role ... <|im_end|>"},
      {"vicuna", {nullptr, kVicuna}, "chat: USER: ... ASSISTANT: ..."},
      {"llama-2-chat", {nullptr, kLlama2}, "chat: [INST] <<SYS>> ... [/INST]"},
      {"llama-3", {nullptr, kLlama3}, "chat: <|start_header_id|>role<|end_header_id|> ... <|eot_id|>"},
      {"mistral-instruct", {nullptr, kMistral}, "chat: [INST] ... [/INST], as of version 0.3"},
      {"model", {}, "the chat template in the model's files, or data.chat_template"},
      {"custom", {}, "data.custom_template"},
  };
  return rows;
}

PromptTemplate make_prompt_template(TemplateConfig const& config) {
  auto const& name = config.name;
  auto const row = find_row(prompt_templates(), name, "data.prompt_template").build;
  if (name == "custom") return custom(config);
  if (name == "model") return of_model(config);
  PromptTemplate made;
  made.name = name;
  made.prompt = row.prompt;
  if (row.chat != nullptr) made.chat = std::make_shared<JinjaTemplate>(row.chat, "template " + name);
  return made;
}

TemplateConfig self_contained(TemplateConfig config) {
  if (config.name == "model") config.chat_text = chat_source(config);
  return config;
}

nlohmann::ordered_json to_json(TemplateConfig const& config) {
  nlohmann::ordered_json json{{"name", config.name}};
  if (config.name == "custom")
    json["custom_template"] = {{"prompt", config.custom_prompt},
                               {"prompt_no_input", config.custom_prompt_no_input}};
  if (config.name == "model")
    json.update({{"chat_template", config.chat_text}, {"template_date", config.date}});
  return json;
}

TemplateConfig template_from_json(nlohmann::json const& json, std::string const& place) {
  TemplateConfig config;
  try {
    json.at("name").get_to(config.name);
    if (config.name == "custom") {
      json.at("custom_template").at("prompt").get_to(config.custom_prompt);
      json.at("custom_template").at("prompt_no_input").get_to(config.custom_prompt_no_input);
    }
    if (config.name == "model") {
      json.at("chat_template").get_to(config.chat_text);
      json.at("template_date").get_to(config.date);
      config.model = place;
    }
    make_prompt_template(config);
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{}: no prompt template ({}). Restore the file.", place, error.what()));
  } catch (Error const& error) {
    fail(fmt::format("{}: {}", place, error.what()));
  }
  return config;
}

std::string prompt_text(PromptTemplate const& prompt, Sample const& sample) {
  if (prompt.prompt != nullptr) return prompt.prompt(sample);
  return fill(sample.input.empty() ? prompt.without_input : prompt.with_input, sample);
}

}  // namespace fsllm

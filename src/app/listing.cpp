// SPDX-License-Identifier: Apache-2.0
#include "listing.hpp"

#include <algorithm>
#include <functional>

#include "examples.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/table.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/data/splitter.hpp"
#include "fsllm/eval/task.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/sampler.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/model/config.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {
namespace {

struct Line {
  std::string name, what;
};

std::string columns(std::vector<Line> const& lines) {
  size_t width = 0;
  for (auto const& line : lines) width = std::max(width, line.name.size());
  std::string text;
  for (auto const& [name, what] : lines) text += fmt::format("{:<{}}  {}\n", name, width, what);
  return text;
}

template <class Builder>
std::string table(std::string const& heading, std::vector<Row<Builder>> const& rows) {
  std::vector<Line> lines;
  for (auto const& row : rows) lines.push_back({"  " + row.name, row.what});
  return heading + "\n" + columns(lines);
}

/// What the model_types are known as.
constexpr std::pair<char const*, char const*> kFamilies[] = {
    {"llama", "LLaMA 1 to 3, SmolLM, TinyLlama, Vicuna"},
    {"mistral", "Mistral"},
    {"qwen2", "Qwen 1.5, 2 and 2.5"},
    {"qwen3", "Qwen 3"},
    {"gpt2", "GPT-2, DistilGPT-2"},
    {"opt", "OPT"},
    {"gpt_neox", "GPT-NeoX, Pythia"},
    {"bloom", "BLOOM, BLOOMZ"},
    {"gpt_neo", "GPT-Neo"},
    {"gptj", "GPT-J"},
    {"phi3", "Phi-3"},
    {"gemma", "Gemma 1"},
    {"gemma2", "Gemma 2"},
    {"falcon", "Falcon 7B and 11B"},
};

std::string models() {
  std::vector<Line> lines;
  for (auto const& name : known_model_families()) {
    auto const* const known = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                           [&](auto const& family) { return family.first == name; });
    lines.push_back({"  " + name, known == std::end(kFamilies) ? "" : known->second});
  }
  return "model_type of config.json, in folders in Hugging Face layout; llama also as .gguf\n" +
         columns(lines);
}

std::string adapters() {
  std::vector<Line> lines;
  for (auto const& [name, what] : peft_methods()) lines.push_back({"  " + name, what});
  return "llm.adapter.args: [{adapter_method: NAME}]\n" + columns(lines);
}

std::string data_sets() {
  return table("data.type: NAME (datasets/README.md says which file it reads from where)", data_formats()) +
         "or your own files: .json .jsonl .csv .tsv .parquet .txt (data.columns names their fields)\n";
}

std::string algorithms() {
  return table("federate.method: NAME", algorithm_table()) +
         table("\nfederate.lora_aggregation: NAME", lora_aggregation_table()) +
         table("\naggregator.robust_rule: NAME", robust_rule_table()) +
         table("\nfederate.sampler: NAME", sampler_table());
}

/// The comment that an example begins with, without licence and schema lines, up to its first full stop.
std::string first_sentence(std::string_view text) {
  std::string sentence;
  while (text.starts_with("#")) {
    auto const end = std::min(text.find('\n'), text.size());
    auto const line = text.substr(1, end - 1);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find("SPDX") != line.npos || line.find("yaml-language-server") != line.npos) continue;
    sentence += line;
    if (line.ends_with('.') || line.empty()) break;
  }
  sentence.erase(0, sentence.find_first_not_of(' '));
  for (auto end = sentence.find('.'); end != sentence.npos; end = sentence.find('.', end + 1)) {
    auto const word =
        sentence.substr(sentence.find_last_of(" (", end) + 1, end - sentence.find_last_of(" (", end) - 1);
    bool const abbreviated = word == "al" || word.size() == 1;
    if (!abbreviated && (end + 1 == sentence.size() || sentence[end + 1] == ' '))
      return sentence.substr(0, end);
  }
  return sentence;
}

std::string examples_list() {
  std::vector<Line> lines;
  for (auto const& [name, text] : built_in_examples()) lines.push_back({"  " + name, first_sentence(text)});
  return "fsllm_hpc --example NAME > run.yaml, or at once: fsllm_hpc --cfg example:NAME [KEY=VALUE]...\n" +
         columns(lines);
}

struct Subject {
  std::string what;
  std::function<std::string()> text;
  std::string about;
};

std::vector<Subject> const& subjects() {
  static std::vector<Subject> const all{
      {"models", models, "families of models"},
      {"adapters", adapters, "adapter methods"},
      {"datasets", data_sets, "data sets and files"},
      {"splitters", [] { return table("data.splitter: NAME", splitters()); },
       "ways to divide rows over clients"},
      {"templates", [] { return table("data.prompt_template: NAME", prompt_templates()); },
       "how a row becomes a prompt"},
      {"algorithms", algorithms, "federated algorithms, aggregations, samplers of clients"},
      {"tasks", [] { return table("eval.tasks: [NAME], fsllm_eval --tasks NAME", task_table()); },
       "tasks that models are put to"},
      {"examples", examples_list, "configurations to begin with"},
  };
  return all;
}

}  // namespace

std::string listing(std::string const& what) {
  std::vector<std::string> names;
  std::vector<Line> lines;
  for (auto const& subject : subjects()) {
    if (subject.what == what) return subject.text();
    names.push_back(subject.what);
    lines.push_back({"  --list " + subject.what, subject.about});
  }
  FSLLM_CHECK(what.empty(), "--list {} (no such list).{}", what, did_you_mean(what, names));
  return columns(lines);
}

std::string const& example(std::string const& name) {
  std::vector<std::string> names;
  for (auto const& [known, text] : built_in_examples()) {
    if (known == name) return text;
    names.push_back(known);
  }
  fail(fmt::format("--example {} (no such example).{} --list examples names all.", name,
                   did_you_mean(name, names)));
}

std::string configuration_text(std::string const& source) {
  std::string const prefix = kExamplePrefix;
  return source.starts_with(prefix) ? example(source.substr(prefix.size())) : read_file(source);
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/template.hpp"

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

}  // namespace

std::vector<Row<PromptTemplate>> const& prompt_templates() {
  static std::vector<Row<PromptTemplate>> const rows{
      {"alpaca", alpaca, "Stanford Alpaca's prompt, with or without input"},
      {"plain", plain, "instruction and input, a line each"},
  };
  return rows;
}

PromptTemplate find_prompt_template(std::string const& name) {
  return find_row(prompt_templates(), name, "data.prompt_template").build;
}

}  // namespace fsllm

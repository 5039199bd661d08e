// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "fsllm/eval/task.hpp"

namespace fsllm::detail {

/// A mean log-likelihood with its interval as exp(-mean); the error by the delta method.
void make_perplexity(Metric& metric);

/// Whole documents, each a text, scored window by window (rolling_windows): perplexity a word, a byte and a
/// token, and bits a byte, summed over all documents as lm-evaluation-harness' wikitext has them.
std::unique_ptr<EvalTask> perplexity_task(std::string const& name, std::vector<std::string> documents);

}  // namespace fsllm::detail

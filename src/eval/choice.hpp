// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "fsllm/eval/task.hpp"

namespace fsllm::detail {

/// Number of the choice with the largest log-likelihood, the first of equals (numpy.argmax).
size_t likeliest(ItemAnswer const& answer);
/// The same of log-likelihoods a character of the choice (lm-evaluation-harness' acc_norm).
size_t likeliest_a_character(ItemAnswer const& answer, std::vector<std::string> const& choices);

/// Without white space at both ends, as Python's str.strip().
std::string trimmed(std::string const& text);

}  // namespace fsllm::detail

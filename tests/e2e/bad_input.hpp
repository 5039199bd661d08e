// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "federation.hpp"

namespace fsllm::test {

/// Exit code 2, and one message of ours, which holds `message`.
void expect_message(Outcome const& outcome, std::string const& message);

}  // namespace fsllm::test

// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"

namespace fsllm {

void fail(std::string const& message) {
  throw Error(message);
}

void fail_internal(char const* file, int line, std::string const& message) {
  throw InternalError(fmt::format("{}:{}: {} does not hold (an error in fsllm itself). Please report it.",
                                  file, line, message));
}

}  // namespace fsllm

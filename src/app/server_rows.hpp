// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "setup.hpp"

namespace fsllm {

/// What the server has to align an emulator with (llm.offsite_tuning.emu_align.data).
struct ServerRows {
  TokenSplit train, judged;  ///< the second is not learnt from; at most 64 rows
  std::string source;        ///< for people
};

/// On rank 0. Of a data set of its own no more rows are encoded than the steps take. No rows is an Error.
ServerRows server_rows(Setup const& s);

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/core/config.hpp"

namespace fsllm {

/// Keys that Ditto and pFedMe have in common.
struct PersonalKeys {
  double regular_weight = 0.1;  ///< λ
  double lr = 0;                ///< 0: as in train
};
PersonalKeys load_personal_keys(Config& config);

}  // namespace fsllm

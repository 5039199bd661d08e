// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "attention.hpp"
#include "fsllm/model/pass.hpp"
#include "virtual_rows.hpp"

namespace fsllm::detail {

/// What the decoder keeps in a Pass.
struct PassPlan {
  VirtualRows rows;
  AttentionPlan attention;
  std::vector<PassSegment> segments;
  DropoutLines tokens;  ///< of all tokens that the layers see; undefined outside training
  bool shared_prefix = false;
  at::Tensor cos, sin;  ///< of their positions, [N, 1, R/2], where the model turns keys
};

}  // namespace fsllm::detail

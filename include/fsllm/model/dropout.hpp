// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "fsllm/model/pass.hpp"

namespace fsllm {

/// Dropout without a generator. Element e of a line is kept where word e mod 4 of the block
///   Philox4x32-10(counter = (e / 4, place, row, head), key = seed xor hash_of(site))
/// is below floor((1 - p) · 2^32) (at most 2^32 - 1). So a mask depends on no other one: not on
/// micro-batches, packing, ranks or device. `site` is one name a place where something is dropped, layer
/// included.
///
/// The lines broadcast to the mask's shape but for its last dimension, `width`; bool, on their device.
at::Tensor keep_mask(DropoutLines const& lines, int64_t width, double probability, std::string const& site);

/// The same for x [..., width], whose lines are the pass's tokens. Undefined outside training or where
/// nothing is dropped.
at::Tensor keep_mask(at::Tensor const& x, double probability, Pass const& pass, std::string const& site);
/// x with dropout: kept elements are scaled by 1 / (1 - probability).
at::Tensor dropped(at::Tensor const& x, double probability, Pass const& pass, std::string const& site);

}  // namespace fsllm

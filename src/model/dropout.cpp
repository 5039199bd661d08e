// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/dropout.hpp"

#include <ATen/ops/broadcast_tensors.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "dropout_masks.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "recompute.hpp"

namespace fsllm {

at::Tensor keep_mask(DropoutLines const& lines, int64_t width, double probability, std::string const& site) {
  auto const head = lines.head.defined() ? lines.head : at::zeros_like(lines.place);
  auto const all = at::broadcast_tensors({lines.seed, lines.place, lines.row, head});
  auto const flat = [&](size_t i) { return all[i].reshape({-1}).contiguous(); };
  detail::MaskBlocks const blocks{
      .key = flat(0).bitwise_xor(static_cast<int64_t>(hash_of(site))),
      .place = flat(1),
      .row = flat(2),
      .head = flat(3),
      .width = width,
      .threshold = static_cast<uint32_t>(std::min((1 - probability) * 0x1p32, 0x1p32 - 1))};
  auto shape = all[0].sizes().vec();
  shape.push_back(width);
  return (blocks.key.is_cpu() ? mask_by_loop(blocks) : mask_by_tensors(blocks)).view(shape);
}

at::Tensor keep_mask(at::Tensor const& x, double probability, Pass const& pass, std::string const& site) {
  if (!pass.training() || probability == 0) return {};
  auto const& tokens = pass.tokens();
  int64_t const width = x.size(-1);
  if (tokens.seed.numel() * width != x.numel())
    fail_internal(__FILE__, __LINE__, "dropout of other tokens than those of the pass: " + site);
  auto const draw = [tokens, width, probability, site, shape = x.sizes().vec()] {
    return keep_mask(tokens, width, probability, site).view(shape);
  };
  return detail::cheap(draw(), draw);
}

at::Tensor dropped(at::Tensor const& x, double probability, Pass const& pass, std::string const& site) {
  auto const mask = keep_mask(x, probability, pass, site);
  return mask.defined() ? at::mul(x, mask).div(1 - probability) : x;
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "gguf_names.hpp"

#include <fmt/core.h>

namespace fsllm::detail {

std::vector<GgufPart> gguf_parts(ModelConfig const& config, Family const& family, bool interleaved) {
  std::vector<GgufPart> parts;
  auto const add = [&](std::string gguf, std::string const& prefix, std::string const& name,
                       RowOrder order = RowOrder::same, int64_t heads = 1) {
    if (!name.empty()) parts.push_back({std::move(gguf), prefix + name, order, heads});
  };
  add("token_embd", family.prefix, family.embedding);
  add("position_embd", family.prefix, family.positions);
  add("output_norm", family.prefix, family.final_norm);
  add("output", "", family.head);
  auto const& names = family.block;
  auto const turned = interleaved ? RowOrder::interleaved : RowOrder::same;
  auto const linear = config.conv1d ? RowOrder::transposed : RowOrder::same;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    auto const ours = fmt::format("{}{}.{}.", family.prefix, family.blocks, layer);
    auto const theirs = fmt::format("blk.{}.", layer);
    add(theirs + "attn_norm", ours, names.norm1);
    add(theirs + "ffn_norm", ours, names.norm2);
    add(theirs + "attn_q", ours, names.q, turned, config.num_heads);
    add(theirs + "attn_k", ours, names.k, turned, config.num_kv_heads);
    add(theirs + "attn_v", ours, names.v);
    add(theirs + "attn_qkv", ours, names.qkv, linear);
    add(theirs + "attn_output", ours, names.out, linear);
    add(theirs + "ffn_gate", ours, names.gate, linear);
    add(theirs + "ffn_up", ours, names.up, linear);
    add(theirs + "ffn_down", ours, names.down, linear);
  }
  return parts;
}

at::Tensor in_halves(at::Tensor const& rows, int64_t heads) {
  auto const pairs = rows.size(0) / heads / 2;
  return rows.reshape({heads, pairs, 2, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

at::Tensor in_pairs(at::Tensor const& rows, int64_t heads) {
  auto const pairs = rows.size(0) / heads / 2;
  return rows.reshape({heads, 2, pairs, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

}  // namespace fsllm::detail

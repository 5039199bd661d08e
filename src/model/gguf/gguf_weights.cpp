// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <utility>

#include "../weights.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/gguf.hpp"
#include "gguf_config.hpp"

namespace fsllm::detail {
namespace {

/// How a tensor's rows differ from Hugging Face's.
enum class Order { same, transposed, interleaved };

struct Part {
  char const* gguf;
  std::string const& hugging_face;
  Order order = Order::same;
  int64_t heads = 1;
};

/// Rows in pairs (2i, 2i+1) of each head, as llama.cpp has them, to two halves (i, i + D/2).
at::Tensor in_halves(at::Tensor const& rows, int64_t heads) {
  auto const pairs = rows.size(0) / heads / 2;
  return rows.reshape({heads, pairs, 2, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

class GgufWeights final : public WeightSource {
 public:
  GgufWeights(std::filesystem::path const& path, ModelConfig const& config, Family const& family)
      : file_(path) {
    for (auto const& part : {Part{"token_embd", family.embedding}, Part{"position_embd", family.positions},
                             Part{"output_norm", family.final_norm}})
      add(part.gguf, family.prefix + part.hugging_face, part);
    add("output", family.head, {"output", family.head});
    for (int64_t layer = 0; layer < config.num_layers; ++layer) add_block(layer, config, family);
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (auto const& [name, _] : items_) all.push_back(name);
    for (auto const& [name, _] : file_.tensors())
      if (!taken_.contains(name) && name != "rope_freqs.weight") all.push_back(name);
    return all;
  }
  bool contains(std::string const& name) const override { return items_.contains(name); }
  std::vector<int64_t> shape(std::string const& name) const override {
    auto const& item = items_.at(name);
    auto shape = file_.info(item.gguf).shape;
    if (item.order == Order::transposed) std::swap(shape.at(0), shape.at(1));
    return shape;
  }
  std::string dtype(std::string const& name) const override {
    return file_.element_type(items_.at(name).gguf);
  }
  at::Tensor tensor(std::string const& name) const override {
    auto const& item = items_.at(name);
    auto const values = file_.tensor(item.gguf);
    if (item.order == Order::interleaved) return in_halves(values, item.heads);
    return item.order == Order::transposed ? values.t().contiguous() : values;
  }
  std::string file_of(std::string const&) const override { return file_.path().string(); }
  std::vector<std::filesystem::path> files() const override { return file_.files(); }
  bool mapped() const override { return false; }

 private:
  struct Item {
    std::string gguf;
    Order order;
    int64_t heads;
  };

  void add(std::string const& gguf, std::string const& hugging_face, Part const& part) {
    for (auto const* kind : {".weight", ".bias"}) {
      if (part.hugging_face.empty() || !file_.contains(gguf + kind)) continue;
      auto const dimensions = file_.info(gguf + kind).shape.size();
      auto const order = part.order == Order::transposed && dimensions != 2 ? Order::same : part.order;
      items_.emplace(hugging_face + kind, Item{gguf + kind, order, part.heads});
      taken_.emplace(gguf + kind, true);
    }
  }

  void add_block(int64_t layer, ModelConfig const& config, Family const& family) {
    auto const& names = family.block;
    auto const turned = has_interleaved_rows(file_) ? Order::interleaved : Order::same;
    auto const linear = config.conv1d ? Order::transposed : Order::same;
    for (auto const& part : {Part{"attn_norm", names.norm1}, Part{"ffn_norm", names.norm2},
                             Part{"attn_q", names.q, turned, config.num_heads},
                             Part{"attn_k", names.k, turned, config.num_kv_heads}, Part{"attn_v", names.v},
                             Part{"attn_qkv", names.qkv, linear}, Part{"attn_output", names.out, linear},
                             Part{"ffn_gate", names.gate, linear}, Part{"ffn_up", names.up, linear},
                             Part{"ffn_down", names.down, linear}})
      add(fmt::format("blk.{}.{}", layer, part.gguf),
          fmt::format("{}{}.{}.{}", family.prefix, family.blocks, layer, part.hugging_face), part);
  }

  GgufReader file_;
  std::map<std::string, Item> items_;  ///< by Hugging Face's name
  std::map<std::string, bool> taken_;  ///< by the file's name
};

}  // namespace

std::unique_ptr<WeightSource> open_gguf(std::filesystem::path const& file, ModelConfig const& config,
                                        Family const& family) {
  return std::make_unique<GgufWeights>(file, config, family);
}

}  // namespace fsllm::detail

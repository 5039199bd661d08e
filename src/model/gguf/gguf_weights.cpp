// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "../weights.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/gguf.hpp"
#include "gguf_config.hpp"
#include "gguf_names.hpp"

namespace fsllm::detail {
namespace {

class GgufWeights final : public WeightSource {
 public:
  GgufWeights(std::filesystem::path const& path, ModelConfig const& config, Family const& family)
      : file_(path) {
    for (auto const& part : gguf_parts(config, family, has_interleaved_rows(file_))) add(part);
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
    if (item.order == RowOrder::transposed) std::swap(shape.at(0), shape.at(1));
    return shape;
  }
  std::string dtype(std::string const& name) const override {
    return file_.element_type(items_.at(name).gguf);
  }
  at::Tensor tensor(std::string const& name) const override {
    auto const& item = items_.at(name);
    auto const values = file_.tensor(item.gguf);
    if (item.order == RowOrder::interleaved) return in_halves(values, item.heads);
    return item.order == RowOrder::transposed ? values.t().contiguous() : values;
  }
  std::string file_of(std::string const&) const override { return file_.path().string(); }
  std::vector<std::filesystem::path> files() const override { return file_.files(); }
  bool mapped() const override { return false; }

 private:
  struct Item {
    std::string gguf;
    RowOrder order;
    int64_t heads;
  };

  void add(GgufPart const& part) {
    for (auto const* kind : {".weight", ".bias"}) {
      if (!file_.contains(part.gguf + kind)) continue;
      auto const dimensions = file_.info(part.gguf + kind).shape.size();
      auto const order = part.order == RowOrder::transposed && dimensions != 2 ? RowOrder::same : part.order;
      items_.emplace(part.hugging_face + kind, Item{part.gguf + kind, order, part.heads});
      taken_.emplace(part.gguf + kind, true);
    }
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

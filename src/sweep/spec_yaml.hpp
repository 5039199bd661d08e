// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "fsllm/sweep/spec.hpp"

namespace fsllm::detail {

/// A part of a SPEC with its name in messages.
struct SpecNode {
  YAML::Node node;
  std::string file, path;

  /// "sweep.yaml:7: grid.train.optimizer.lr"
  std::string where() const;
  bool given() const { return node.IsDefined() && !node.IsNull(); }
  /// The entry of a map; what is not there is not given().
  SpecNode at(std::string const& key) const;
  /// Names and nodes of a map, in file order. No map, a name that stands twice or that `known` (unless it is
  /// empty) does not hold is an Error.
  std::vector<std::pair<std::string, SpecNode>> entries(std::vector<std::string> const& known = {}) const;
  /// The entries of a list with at least one.
  std::vector<SpecNode> items() const;
  std::string text() const;
  int64_t whole(int64_t least) const;
  double number() const;
  /// Any value of a configuration key.
  SweepValue value() const;
};

SpecNode parse_spec(std::filesystem::path const& file);

SweepMetric read_metric(SpecNode const& node);
/// `random:` or `bayes:`, and `halving:` with either or with a grid.
void read_search(SpecNode const& root, SweepSpec& spec);
void read_halving(SpecNode const& node, SweepSpec& spec);
/// A key that runs may differ in: not one that the sweep sets itself.
void check_key(SpecNode const& node, std::string const& key);

}  // namespace fsllm::detail

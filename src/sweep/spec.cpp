// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/spec.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/files.hpp"
#include "spec_yaml.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using detail::SpecNode;

constexpr int64_t kMostRuns = 100000;

std::vector<SweepValue> listed_values(SpecNode const& list) {
  std::vector<SweepValue> values;
  std::set<std::string> seen;
  for (auto const& item : list.items()) {
    values.push_back(item.value());
    FSLLM_CHECK(seen.insert(values.back().json.dump()).second, "{} lists {} twice. Keep one of them.",
                list.where(), values.back().text);
  }
  return values;
}

/// NAME: {KEY: VALUE, ...}, each of which sets several keys at once.
std::vector<SweepValue> named_choices(SpecNode const& choices) {
  std::vector<SweepValue> values;
  for (auto const& [name, keys] : choices.entries()) {
    SweepValue choice{name, name};
    for (auto const& [key, value] : keys.entries()) {
      detail::check_key(value, key);
      choice.sets.emplace_back(key, value.value());
    }
    values.push_back(std::move(choice));
  }
  return values;
}

/// A key that two parts of the grid set would be set by the last one, in silence.
void check_set_once(SpecNode const& node, std::vector<GridKey> const& grid) {
  std::map<std::string, std::string> setter;
  auto const add = [&](std::string const& key, std::string const& by) {
    auto const [other, is_new] = setter.emplace(key, by);
    FSLLM_CHECK(is_new || other->second == by, "{} sets {} twice (in {} and in {}). Leave it to one of them.",
                node.where(), key, other->second, by);
  };
  for (auto const& row : grid)
    for (auto const& value : row.values) {
      add(row.key, row.key);
      for (auto const& [key, set] : value.sets) add(key, row.key);
    }
}

void read_grid(SpecNode const& node, SweepSpec& spec) {
  int64_t settings = 1;
  for (auto const& [key, given] : node.entries()) {
    detail::check_key(given, key);
    GridKey row{key, given.node.IsMap() ? named_choices(given) : listed_values(given)};
    settings *= static_cast<int64_t>(row.values.size());
    FSLLM_CHECK(settings <= kMostRuns, "{} (the grid has more than {} settings). Shorten it, or use random.",
                node.where(), kMostRuns);
    spec.grid.push_back(std::move(row));
  }
  check_set_once(node, spec.grid);
}

void read_seeds(SpecNode const& node, Config const& base, SweepSpec& spec) {
  if (!node.given()) {
    spec.seeds = {std::atoll(base.text("seed").value_or("0").c_str())};
    return;
  }
  for (auto const& item : node.items()) {
    spec.seeds.push_back(item.whole(0));
    FSLLM_CHECK(std::count(spec.seeds.begin(), spec.seeds.end(), spec.seeds.back()) == 1,
                "{} lists {} twice. Keep one of them.", node.where(), spec.seeds.back());
  }
}

/// The configuration that all runs begin with; what its keys mean, the runs find out.
Config read_base(SpecNode const& root, SweepSpec& spec) {
  spec.base = root.at("base").text();
  auto const path = spec.folder / spec.base;
  FSLLM_CHECK(fs::is_regular_file(path), "{} = {} (there is no such file in {}). Name a configuration.",
              root.at("base").where(), spec.base, spec.folder.string());
  auto const text = read_file(path);
  spec.base_sha256 = sha256(text);
  auto config = Config::parse(text, path.string());
  auto const rounds = config.text("federate.total_round_num").value_or("50");
  spec.base_rounds = std::atoll(rounds.c_str());
  return config;
}

/// FS-LLM's searches are part of the configuration; here they belong to the SPEC.
void refuse_hpo(Config const& base, SweepSpec const& spec) {
  auto const scheduler = base.text("hpo.scheduler");
  if (!scheduler || !base.has("hpo.ss") || !spec.grid.empty() || !spec.space.empty()) return;
  auto const says = *scheduler == "sha" || *scheduler == "hb"
                        ? "random: {count, keys} and halving: {min, max, eta}"
                    : scheduler->starts_with("bo") ? "bayes: {count, keys}"
                                                   : "random: {count, keys}";
  fail(fmt::format(
      "{}: hpo.scheduler = {} in {} (a sweep's search stands in the SPEC). Write {} there, with the "
      "keys of {}.",
      spec.file.string(), *scheduler, spec.base, says, base.text("hpo.ss").value_or("hpo.ss")));
}

}  // namespace

namespace detail {

void check_key(SpecNode const& node, std::string const& key) {
  static std::vector<std::pair<std::string, std::string>> const own{
      {"seed", "Write seeds: [1, 2] beside grid."},
      {"outdir", "Write outdir: beside grid."},
      {"expname", "Leave it out: every run has a folder that says its setting."}};
  for (auto const& [name, advice] : own)
    FSLLM_CHECK(key != name, "{} (the sweep sets {} itself). {}", node.where(), name, advice);
}

SweepMetric read_metric(SpecNode const& node) {
  if (node.node.IsScalar()) return {node.text(), false};
  for (auto const& entry : node.entries({"name", "best"})) static_cast<void>(entry);
  SweepMetric metric{node.at("name").text(), false};
  if (auto const best = node.at("best"); best.given()) {
    FSLLM_CHECK(best.text() == "min" || best.text() == "max", "{} = {} (min or max). Correct it.",
                best.where(), best.text());
    metric.larger_is_better = best.text() == "max";
  }
  return metric;
}

}  // namespace detail

SweepSpec load_sweep(fs::path const& file) {
  SweepSpec spec;
  spec.file = file;
  spec.folder = fs::absolute(file).parent_path();
  auto const root = detail::parse_spec(file);
  auto const entries =
      root.entries({"base", "outdir", "grid", "random", "bayes", "halving", "seeds", "metrics"});
  auto const base = read_base(root, spec);
  spec.outdir = root.at("outdir").text();
  FSLLM_CHECK(!spec.outdir.empty(), "{} is empty. Name a folder.", root.at("outdir").where());
  if (root.at("grid").given()) read_grid(root.at("grid"), spec);
  detail::read_search(root, spec);
  refuse_hpo(base, spec);
  FSLLM_CHECK(!spec.grid.empty() || !spec.space.empty() || root.at("seeds").given(),
              "{} varies nothing (it has neither grid nor random, bayes or seeds). Add one of them.",
              file.string());
  read_seeds(root.at("seeds"), base, spec);
  if (root.at("metrics").given())
    for (auto const& item : root.at("metrics").items()) spec.metrics.push_back(detail::read_metric(item));
  else
    spec.metrics = {{"val.loss_per_token", false}};
  if (root.at("halving").given()) detail::read_halving(root.at("halving"), spec);
  return spec;
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "spec_yaml.hpp"

#include <charconv>
#include <cmath>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm::detail {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kDeepest = 8;

template <class T>
bool reads_as(std::string const& text, T& number) {
  auto const* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  auto const [end, problem] = std::from_chars(begin, text.data() + text.size(), number);
  return problem == std::errc() && end == text.data() + text.size() && !text.empty();
}

/// YAML 1.1's plain scalars; what is written in quotes is a text.
Json scalar_json(YAML::Node const& node) {
  auto const& text = node.Scalar();
  if (node.Tag() == "!") return text;
  static std::set<std::string> const yes{"true", "True", "TRUE"}, no{"false", "False", "FALSE"};
  if (yes.contains(text)) return true;
  if (no.contains(text)) return false;
  if (int64_t whole = 0; reads_as(text, whole)) return whole;
  if (double number = 0; reads_as(text, number) && std::isfinite(number)) return number;
  return text;
}

Json json_of(YAML::Node const& node, SpecNode const& at, int depth) {
  FSLLM_CHECK(depth < kDeepest, "{} (nested too deeply, or an alias that contains itself). Flatten it.",
              at.where());
  if (node.IsScalar()) return scalar_json(node);
  if (node.IsSequence()) {
    auto list = Json::array();
    for (auto const& item : node) list.push_back(json_of(item, at, depth + 1));
    return list;
  }
  if (!node.IsMap()) return nullptr;
  auto map = Json::object();
  for (auto const& item : node) map[item.first.Scalar()] = json_of(item.second, at, depth + 1);
  return map;
}

}  // namespace

std::string SpecNode::where() const {
  return node.IsDefined() && node.Mark().line >= 0
             ? fmt::format("{}:{}: {}", file, node.Mark().line + 1, path)
             : fmt::format("{}: {}", file, path);
}

SpecNode SpecNode::at(std::string const& key) const {
  return {node.IsMap() ? node[key] : YAML::Node(YAML::NodeType::Undefined), file,
          path.empty() ? key : path + "." + key};
}

std::vector<std::pair<std::string, SpecNode>> SpecNode::entries(std::vector<std::string> const& known) const {
  FSLLM_CHECK(node.IsMap() && node.size() > 0, "{} is no map of keys. Write KEY: VALUE lines.",
              path.empty() ? file : where());
  std::vector<std::pair<std::string, SpecNode>> found;
  std::set<std::string> names;
  for (auto const& item : node) {
    FSLLM_CHECK(item.first.IsScalar(), "{} has a key that is not plain text. Write KEY: VALUE.", where());
    auto const& name = item.first.Scalar();
    SpecNode const entry{item.second, file, path.empty() ? name : path + "." + name};
    auto const place = fmt::format("{}:{}: {}", file, item.first.Mark().line + 1, entry.path);
    FSLLM_CHECK(names.insert(name).second, "{} stands twice. Keep one of them.", place);
    FSLLM_CHECK(known.empty() || std::find(known.begin(), known.end(), name) != known.end(),
                "{} is no key of a sweep.{}", place, did_you_mean(name, known));
    found.emplace_back(name, entry);
  }
  return found;
}

std::vector<SpecNode> SpecNode::items() const {
  FSLLM_CHECK(node.IsSequence() && node.size() > 0, "{} is no list with at least one entry. Write [a, b].",
              where());
  std::vector<SpecNode> found;
  for (auto const& item : node) found.push_back({item, file, path});
  return found;
}

std::string SpecNode::text() const {
  FSLLM_CHECK(given(), "{} is missing. Add it.", where());
  FSLLM_CHECK(node.IsScalar(), "{} is no single value. Write one.", where());
  return node.Scalar();
}

int64_t SpecNode::whole(int64_t least) const {
  auto const written = text();
  int64_t number = 0;
  FSLLM_CHECK(reads_as(written, number) && number >= least,
              "{} = {} (a whole number from {} is needed). Correct it.", where(), written, least);
  return number;
}

double SpecNode::number() const {
  auto const written = text();
  double number = 0;
  FSLLM_CHECK(reads_as(written, number) && std::isfinite(number), "{} = {} (a number is needed). Correct it.",
              where(), written);
  return number;
}

SweepValue SpecNode::value() const {
  FSLLM_CHECK(given(), "{} has an empty value. Write '' for an empty text.", where());
  auto json = json_of(node, *this, 0);
  return {node.IsScalar() ? node.Scalar() : json.dump(), std::move(json)};
}

SpecNode parse_spec(std::filesystem::path const& file) {
  auto const name = file.string();
  auto const text = read_file(file);
  try {
    auto const documents = YAML::LoadAll(text);
    FSLLM_CHECK(documents.size() == 1, "{} holds {} documents (a sweep is one). Remove the lines '---'.",
                name, documents.size());
    return {documents.front(), name, ""};
  } catch (YAML::Exception const& error) {
    fail(
        fmt::format("{}:{} is not valid YAML ({}). Correct it there.", name, error.mark.line + 1, error.msg));
  }
}

}  // namespace fsllm::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fsllm/core/config.hpp"
#include "targets.hpp"

namespace fsllm::detail {

/// Section of the YAML that holds a method's arguments.
inline std::string const kArgs = "llm.adapter.args[0]";

/// An adapter_config.json and where it lies; without a file: nothing saved.
struct SavedConfig {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  std::string file, dir;
  explicit operator bool() const { return !file.empty(); }
};

/// The arguments of one method. PEFT's names are the same in a YAML and in adapter_config.json, so a method
/// reads both by one list of get(): a saved value stands where the YAML is silent, and where it speaks both
/// must say the same.
class Arguments {
 public:
  /// `presets` replace the methods' own defaults (AdapterHub has others); a saved adapter needs none.
  Arguments(Config& config, SavedConfig saved, nlohmann::ordered_json const& presets);

  template <class T>
  T get(std::string const& name, T const& fallback, std::string const& doc,
        Constraint const& constraint = {});
  std::string get(std::string const& name, char const* fallback, std::string const& doc,
                  Constraint const& constraint = {}) {
    return get(name, std::string(fallback), doc, constraint);
  }
  /// A truth value or a word, in lower case. The YAML does not change what a saved adapter says.
  std::string word(std::string const& name, char const* fallback, std::string const& doc);
  /// A list of names, 'all-linear', or a regular expression. A saved adapter lists the names that all-linear
  /// stood for; its tensors show whether those are all.
  Targets targets(std::string const& name, std::string const& doc);
  /// A map from regular expressions of module paths to numbers, the first match counts.
  Patterns patterns(std::string const& name, std::string const& doc, Constraint const& constraint);
  /// An argument that PEFT knows and of which one value alone is built.
  template <class T>
  void only(std::string const& name, T const& value, std::string const& doc);
  /// Keys of adapter_config.json that must be null, false or empty here.
  void refuse_saved(std::vector<std::string> const& keys) const;

  /// Other defaults than the methods' own, where neither YAML nor presets nor a saved adapter say anything.
  void assume(nlohmann::ordered_json const& defaults);

  /// What the saved adapter says of this counts no more.
  void forget_saved(std::string const& name);

  std::string const& saved_file() const { return saved_.file; }
  bool saved() const { return static_cast<bool>(saved_); }
  bool given(std::string const& name) const { return config_.has(kArgs + "." + name); }
  /// "run.yaml:4: llm.adapter.args[0].r", or the file and key of a saved adapter.
  std::string where(std::string const& name) const;
  std::vector<std::string> const& names() const { return names_; }  ///< all that were asked for

 private:
  /// The saved value, else the preset; null where there is neither.
  nlohmann::ordered_json const& stored(std::string const& name) const;
  template <class T>
  T start(std::string const& name, T const& fallback, Constraint const& constraint) const;
  template <class T>
  void agree(std::string const& name, T const& value, T const& saved) const;

  Config& config_;
  SavedConfig saved_;
  nlohmann::ordered_json presets_ = nlohmann::ordered_json::object();
  std::vector<std::string> names_;
  std::set<std::string> forgotten_;
};

}  // namespace fsllm::detail

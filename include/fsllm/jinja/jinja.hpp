// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fsllm {

/// The date that strftime_now gives: the one that LLaMA 3's template falls back to.
inline constexpr char const* kTemplateDate = "2024-07-26";
/// Is this a day, written as 2024-07-26?
bool is_date(std::string const& date);

/// A template in the part of Jinja that chat templates of Hugging Face models are written in, under the
/// settings that transformers uses (trim_blocks, lstrip_blocks, loop controls, its tojson and
/// raise_exception, strftime_now). strftime_now is given the same date on every day, so that the same rows
/// give the same tokens. Time, memory and depth of parsing and rendering are bounded.
class JinjaTemplate {
 public:
  /// `name` stands in messages. A construct outside of the subset is an Error "name:line: ...".
  JinjaTemplate(std::string_view source, std::string name, std::string const& date = kTemplateDate);
  ~JinjaTemplate();
  JinjaTemplate(JinjaTemplate&&) noexcept;

  struct Output {
    std::string text;
    std::vector<std::pair<size_t, size_t>> generated;  ///< byte ranges inside {% generation %}
  };
  /// What goes wrong, raise_exception among it, is an Error "name:line: ...".
  Output render(nlohmann::ordered_json const& variables) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fsllm

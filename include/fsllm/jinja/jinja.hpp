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

/// A template in the part of Jinja that chat templates of Hugging Face models are written in, under the
/// settings that transformers uses (trim_blocks, lstrip_blocks, loop controls, its tojson and
/// raise_exception). strftime_now is not defined: a template with a date of its own falls back to that, so
/// that the same rows give the same tokens on every day.
class JinjaTemplate {
 public:
  /// `name` stands in messages. A construct outside of the subset is an Error "name:line: ...".
  JinjaTemplate(std::string_view source, std::string name);
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

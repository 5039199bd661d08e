// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace fsllm {

/// A regular expression in the language of Python's `re`, which PEFT's configurations are written in, matched
/// by PCRE2. What Python does not know, or reads in another way (Perl's escapes, (?<name>...), recursion,
/// POSIX classes), is refused or translated. Matching takes a bounded number of steps.
class PythonRegex {
 public:
  /// A pattern that Python would not compile is an Error "`what` = 'PATTERN' (not a regular expression ...)".
  PythonRegex(std::string const& pattern, std::string const& what);
  /// re.fullmatch(pattern, text) is not None.
  bool fullmatch(std::string_view text) const;
  /// re.match(pattern, text) is not None: the match begins with the text.
  bool match(std::string_view text) const;

 private:
  bool run(std::string_view text, unsigned options) const;
  struct Code;
  std::shared_ptr<Code const> code_;
  std::string what_, pattern_;
};

}  // namespace fsllm

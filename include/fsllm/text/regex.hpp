// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace fsllm {

/// A compiled pattern of a tokenizer.json. The patterns are written for Oniguruma (Ruby syntax); constructs
/// that mean something else in PCRE2 are translated. Matching is const and safe from many threads, each with
/// its own Memory.
class Regex {
 public:
  /// `where` names file and construct in the error for a pattern that does not compile.
  Regex(std::string const& pattern, std::string const& where);

  struct Match {
    size_t begin = 0, end = 0;
  };
  /// Buffers of one thread.
  class Memory {
   public:
    Memory();
    ~Memory();
    Memory(Memory const&) = delete;
    Memory& operator=(Memory const&) = delete;

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };
  /// The leftmost match that starts at byte `from` or later of valid UTF-8; false: none.
  bool find(std::string_view text, size_t from, Match& match, Memory& memory) const;

 private:
  struct Code;
  std::shared_ptr<Code const> code_;
  std::string where_;
};

}  // namespace fsllm

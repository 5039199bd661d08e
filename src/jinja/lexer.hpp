// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::jinja {

enum class TokenKind {
  text,          ///< outside of tags, white space control done
  output_begin,  ///< {{
  output_end,
  block_begin,  ///< {%
  block_end,
  name,
  integer,
  real,
  string,  ///< escapes done
  symbol,  ///< an operator or bracket
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;
  int line = 1;
};

/// Tokens of a template under the settings of transformers: trim_blocks, lstrip_blocks, no trailing newline.
std::vector<Token> tokenize(std::string_view source, std::string const& name);

}  // namespace fsllm::jinja

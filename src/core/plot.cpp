// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/plot.hpp"

#include <cmath>

#include "fsllm/core/utf8.hpp"

namespace fsllm {

Axis axis_over(double low, double high, int ticks) {
  if (!(high > low)) {
    low -= 0.5;
    high += 0.5;
  }
  double const rough = (high - low) / ticks, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double const factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  return {std::floor(low / step) * step, std::ceil(high / step) * step, step};
}

std::string xml_text(std::string const& text) {
  std::string out;
  for (char const c : printable(text)) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

}  // namespace fsllm

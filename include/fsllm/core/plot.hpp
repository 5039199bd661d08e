// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <string>

namespace fsllm {

/// Okabe and Ito's colours, which people with any colour vision tell apart.
inline constexpr std::array<char const*, 7> kCurveColours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                          "#E69F00", "#56B4E9", "#000000"};

/// What lies at the ends of an axis, and the step between its marks.
struct Axis {
  double low = 0, high = 1, step = 1;
  double share(double value) const { return (value - low) / (high - low); }
};

/// Steps of 1, 2 or 5 times a power of ten, about `ticks` of them.
Axis axis_over(double low, double high, int ticks);

/// Text for SVG and HTML, between tags and in quoted attributes: what XML may not hold, and broken UTF-8, is
/// written out (printable()).
std::string xml_text(std::string const& text);

}  // namespace fsllm

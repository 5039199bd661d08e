// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fsllm::detail {

struct Point {
  double x = 0, y = 0;
};

/// A curve: one point of its polyline for each of `points`; `before` (at most one) is joined to it by a
/// dashed line.
struct Curve {
  std::string name;
  std::vector<Point> points, before = {};
};

/// An area between two values at each x.
struct Band {
  std::string name;
  std::vector<Point> low, high;
};

struct Chart {
  std::string title;
  std::string unit;  ///< of y, behind the title
  std::vector<Curve> curves;
  std::vector<Band> bands = {};
  std::string x_name = "round";
  bool from_zero = false;  ///< the y axis begins at 0
};

/// An SVG that takes its colours from the classes and variables of the page (kPageStyle), with its legend; ""
/// where it has no point. The y axis is logarithmic where values are positive and span more than 30 times the
/// smallest.
std::string chart_html(Chart const& chart);

/// Bars from left to right, each of parts that add up.
struct Bar {
  std::string name;
  std::vector<double> parts;
  std::string note = {};  ///< behind its end
};
std::string bars_html(std::string const& title, std::vector<std::string> const& parts,
                      std::vector<Bar> const& bars);

/// Rows of cells between 0 (empty) and 1 (full), drawn as shades.
std::string shades_html(std::string const& title, std::vector<std::string> const& row_names,
                        std::vector<std::vector<double>> const& rows, std::string const& x_first,
                        std::string const& x_last);

/// At most `most` points, evenly spaced, the first and the last among them.
std::vector<Point> thinned(std::vector<Point> points, size_t most);

}  // namespace fsllm::detail

// SPDX-License-Identifier: Apache-2.0
#include "chart.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "fsllm/core/plot.hpp"

namespace fsllm::detail {
namespace {

// In the units of the viewBox, which are pixels on a phone.
constexpr double kLeft = 46, kTop = 10, kWidth = 340, kHeight = 170, kRight = 14, kBelow = 24;
constexpr double kBarHeight = 14, kBarGap = 4, kNameWidth = 58, kNoteWidth = 112;
constexpr size_t kMostMarkers = 60, kMostThick = 400;
constexpr double kSpanOfLogarithm = 30;

/// Values to heights.
struct Scale {
  Axis axis;
  bool logarithmic = false;
  double share(double value) const { return axis.share(logarithmic ? std::log10(value) : value); }
  double mark(int i) const {
    double const at = axis.low + i * axis.step;
    return logarithmic ? std::pow(10, at) : std::abs(at) < 1e-9 * axis.step ? 0 : at;
  }
  int marks() const { return static_cast<int>(std::lround((axis.high - axis.low) / axis.step)); }
};

void for_each_y(Chart const& chart, auto const& take) {
  for (auto const& curve : chart.curves)
    for (auto const* points : {&curve.before, &curve.points})
      for (auto const& point : *points) take(point);
  for (auto const& band : chart.bands)
    for (auto const* points : {&band.low, &band.high})
      for (auto const& point : *points) take(point);
}

Scale scale_of(Chart const& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for_each_y(chart, [&](Point const& point) {
    low = std::min(low, point.y);
    high = std::max(high, point.y);
  });
  if (!chart.from_zero && low > 0 && high > kSpanOfLogarithm * low) {
    double const from = std::floor(std::log10(low)), to = std::ceil(std::log10(high));
    return {{from, to, std::max(1.0, std::ceil((to - from) / 5))}, true};
  }
  return {axis_over(chart.from_zero ? std::min(low, 0.0) : low, high, 4)};
}

Scale rounds_of(Chart const& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for_each_y(chart, [&](Point const& point) {
    low = std::min(low, point.x);
    high = std::max(high, point.x);
  });
  auto axis = axis_over(low, high, 6);
  axis.step = std::max(1.0, axis.step);
  // Marks stand at whole numbers, but the curves take the whole width.
  return {{low, std::max(high, low + 1), axis.step}};
}

std::string text(double x, double y, char const* anchor, std::string const& what) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     xml_text(what));
}

class Picture {
 public:
  Picture(Scale x, Scale y) : x_(x), y_(y) {}

  std::string axes() const {
    std::string body;
    for (int i = 0; i <= y_.marks(); ++i) {
      double const value = y_.mark(i), y = kTop + kHeight * (1 - y_.share(value));
      body += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}h{:.1f}\"/>\n", kLeft, y, kWidth);
      body += text(kLeft - 6, y + 4, "end", fmt::format("{:.4g}", value));
    }
    double const step = x_.axis.step;
    auto const first = std::ceil(x_.axis.low / step), last = std::floor((x_.axis.high + 1e-9) / step);
    for (auto number = std::llround(first); number <= std::llround(last); ++number) {
      double const mark = static_cast<double>(number) * step;
      body +=
          text(kLeft + kWidth * x_.share(mark), kTop + kHeight + 15, "middle", fmt::format("{:.10g}", mark));
    }
    return body +
           fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}h{:.1f}\"/>\n", kLeft, kTop + kHeight, kWidth);
  }

  std::string curve(Curve const& curve, size_t number) const {
    auto const colour = fmt::format("c{}", number % 6);
    std::string body;
    if (!curve.before.empty() && !curve.points.empty())
      body += fmt::format("<path class=\"line before {}\" d=\"M{}L{}\"/>\n", colour,
                          place(curve.before.front()), place(curve.points.front()));
    std::string const markers = curve.points.size() > kMostMarkers
                                    ? ""
                                    : fmt::format(
                                          " marker-start=\"url(#m{0})\" marker-mid=\"url(#m{0})\" "
                                          "marker-end=\"url(#m{0})\"",
                                          number % 6);
    std::string line;
    for (auto const& point : curve.points) line += (line.empty() ? "" : " ") + place(point);
    return body + fmt::format("<polyline class=\"line {}{}\" data-curve=\"{}\" points=\"{}\"{}/>\n", colour,
                              curve.points.size() > kMostThick ? " thin" : "", xml_text(curve.name), line,
                              markers);
  }

  std::string band(Band const& band, size_t number) const {
    std::string line;
    for (auto const& point : band.low) line += place(point) + " ";
    for (auto point = band.high.rbegin(); point != band.high.rend(); ++point) line += place(*point) + " ";
    return fmt::format("<polygon class=\"band b{}\" points=\"{}\"/>\n", number, line);
  }

 private:
  std::string place(Point const& point) const {
    return fmt::format("{:.1f},{:.1f}", kLeft + kWidth * x_.share(point.x),
                       kTop + kHeight * (1 - y_.share(point.y)));
  }
  Scale x_, y_;
};

std::string legend(std::vector<std::pair<std::string, std::string>> const& entries) {
  std::string html = "<p class=\"legend\">";
  for (auto const& [kind, name] : entries)
    html += fmt::format("<span><i class=\"{}\"></i>{}</span> ", kind, xml_text(name));
  return html + "</p>\n";
}

std::string figure(std::string const& title, std::string const& inside) {
  return fmt::format("<figure>\n<figcaption>{}</figcaption>\n{}</figure>\n", xml_text(title), inside);
}

std::string svg(std::string const& title, double height, std::string const& body) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
                     kLeft + kWidth + kRight, height, xml_text(title), body);
}

}  // namespace

std::string chart_html(Chart const& given) {
  auto chart = given;
  std::erase_if(chart.curves, [](Curve const& curve) { return curve.points.empty(); });
  std::erase_if(chart.bands, [](Band const& band) { return band.low.empty(); });
  if (chart.curves.empty() && chart.bands.empty()) return "";
  auto const y = scale_of(chart);
  Picture const picture(rounds_of(chart), y);
  auto body = picture.axes();
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t i = 0; i < chart.bands.size(); ++i) {
    body += picture.band(chart.bands[i], i);
    names.emplace_back(fmt::format("b{}", i), chart.bands[i].name);
  }
  for (size_t i = 0; i < chart.curves.size(); ++i) {
    body += picture.curve(chart.curves[i], i);
    names.emplace_back(fmt::format("c{}", i % 6), chart.curves[i].name);
  }
  body += text(kLeft + kWidth, kTop + kHeight + 15 + 11, "end", chart.x_name);
  auto title = chart.title;
  if (!chart.unit.empty()) title += ", " + chart.unit;
  if (y.logarithmic) title += " (logarithmic)";
  bool const named = names.size() > 1 || names.front().second != chart.title;
  return figure(title, svg(title, kTop + kHeight + kBelow + 6, body) + (named ? legend(names) : ""));
}

std::string bars_html(std::string const& title, std::vector<std::string> const& parts,
                      std::vector<Bar> const& bars) {
  double most = 0;
  for (auto const& bar : bars) {
    double sum = 0;
    for (double const each : bar.parts) sum += each;
    most = std::max(most, sum);
  }
  if (!(most > 0)) return "";
  double const width = kLeft + kWidth + kRight - kNameWidth - kNoteWidth;
  double y = 4;
  std::string body;
  for (auto const& bar : bars) {
    body += text(kNameWidth - 6, y + 11, "end", bar.name);
    double x = kNameWidth;
    for (size_t i = 0; i < bar.parts.size(); ++i) {
      double const part = width * bar.parts[i] / most;
      body +=
          fmt::format("<rect class=\"f{}\" x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>\n",
                      i % 6, x, y, part, kBarHeight);
      x += part;
    }
    body += text(x + 5, y + 11, "start", bar.note);
    y += kBarHeight + kBarGap;
  }
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t i = 0; i < parts.size(); ++i) names.emplace_back(fmt::format("f{}", i % 6), parts[i]);
  return figure(title, svg(title, y + 4, body) + (parts.size() > 1 ? legend(names) : ""));
}

std::string shades_html(std::string const& title, std::vector<std::string> const& row_names,
                        std::vector<std::vector<double>> const& rows, std::string const& x_first,
                        std::string const& x_last) {
  if (rows.empty() || rows.front().empty()) return "";
  double const left = kNameWidth, width = kLeft + kWidth + kRight - left - 4;
  double const cell = width / static_cast<double>(rows.front().size());
  double const height = std::clamp(220.0 / static_cast<double>(rows.size()), 4.0, 14.0);
  double const gap = height > 8 ? 2 : 0.5, between = cell > 5 ? 1 : 0;
  size_t const every = std::max<size_t>(1, static_cast<size_t>(std::ceil(11 / height)));
  std::string body;
  double y = 4;
  for (size_t r = 0; r < rows.size(); ++r, y += height) {
    if (r % every == 0) body += text(left - 6, y + height / 2 + 4, "end", row_names[r]);
    auto const level = [&](size_t c) { return std::lround(10 * std::clamp(rows[r][c], 0.0, 1.0)); };
    for (size_t c = 0, end = 0; c < rows[r].size(); c = end) {
      for (end = c + 1; between == 0 && end < rows[r].size() && level(end) == level(c); ++end) {
      }
      if (level(c) == 0 && rows[r][c] <= 0) continue;
      body += fmt::format(
          "<rect class=\"f0\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
          "opacity=\"{:.2g}\"/>\n",
          left + cell * static_cast<double>(c), y + gap / 2, cell * static_cast<double>(end - c) - between,
          height - gap, 0.1 + 0.9 * static_cast<double>(level(c)) / 10);
    }
  }
  body += text(left, y + 14, "start", x_first) + text(left + width, y + 14, "end", x_last);
  return figure(title, svg(title, y + 20, body));
}

std::vector<Point> thinned(std::vector<Point> points, size_t most) {
  if (points.size() <= most) return points;
  std::vector<Point> kept;
  for (size_t i = 0; i < most; ++i) kept.push_back(points[i * (points.size() - 1) / (most - 1)]);
  return kept;
}

}  // namespace fsllm::detail

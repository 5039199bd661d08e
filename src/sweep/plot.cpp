// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/plot.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "fsllm/core/error.hpp"
#include "fsllm/sweep/report.hpp"

namespace fsllm {
namespace {

constexpr double kLeft = 78, kTop = 34, kWidth = 560, kHeight = 340;
constexpr double kLegendLine = 18;
constexpr std::array<char const*, 3> kDashes{"", "6 3", "2 3"};

struct Curve {
  std::string name;
  std::map<int64_t, Measure> points;  ///< by round
};

std::vector<Curve> curves_of(Sweep const& sweep, std::string const& metric) {
  std::vector<Curve> curves;
  for (size_t s = 0; s < sweep.settings.size(); ++s) {
    std::map<int64_t, std::vector<double>> values;
    for (size_t i = 0; i < sweep.spec.seeds.size(); ++i)
      for (auto const& event : events_of(sweep.runs[s * sweep.spec.seeds.size() + i]))
        if (auto const value = number_at(event, metric))
          values[static_cast<int64_t>(number_at(event, "round").value_or(0))].push_back(*value);
    Curve curve{sweep.settings[s].empty() ? "base" : keys_text(sweep.settings[s]), {}};
    for (auto const& [round, of_round] : values) curve.points[round] = measure(of_round);
    curves.push_back(std::move(curve));
  }
  return curves;
}

class Drawing {
 public:
  Drawing(Axis x, Axis y) : x_(x), y_(y) {}

  std::string point(double x, double y) const {
    return fmt::format("{:.1f},{:.1f}", kLeft + kWidth * x_.share(x), kTop + kHeight * (1 - y_.share(y)));
  }

  void axes(std::string const& metric) {
    auto const marks = [](Axis const& axis) {
      return static_cast<int>(std::lround((axis.high - axis.low) / axis.step));
    };
    for (int i = 0; i <= marks(x_); ++i) {
      double const x = kLeft + kWidth * i / marks(x_);
      text(x, kTop + kHeight + 18, "middle", fmt::format("{:.4g}", x_.low + i * x_.step));
    }
    for (int i = 0; i <= marks(y_); ++i) {
      double const value = y_.low + i * y_.step, y = kTop + kHeight * (1 - y_.share(value));
      body += fmt::format("<path d=\"M{:.1f} {:.1f}h{:.1f}\" stroke=\"#ddd\"/>\n", kLeft, y, kWidth);
      text(kLeft - 8, y + 4, "end", fmt::format("{:.4g}", std::abs(value) < 1e-9 * y_.step ? 0.0 : value));
    }
    body += fmt::format("<path d=\"M{0:.1f} {1:.1f}v{2:.1f}h{3:.1f}\" fill=\"none\" stroke=\"#444\"/>\n",
                        kLeft, kTop, kHeight, kWidth);
    text(kLeft + kWidth / 2, kTop + kHeight + 38, "middle", "round");
    text(kLeft, kTop - 12, "start", metric);
  }

  void curve(Curve const& curve, size_t number) {
    auto const* colour = kCurveColours[number % kCurveColours.size()];
    std::string line, upper, lower;
    for (auto const& [round, at] : curve.points) {
      auto const x = static_cast<double>(round);
      double const off = at.deviation.value_or(0);
      line += point(x, at.mean) + " ";
      upper += point(x, at.mean + off) + " ";
      lower.insert(0, point(x, at.mean - off) + " ");
    }
    body += fmt::format("<g><title>{}</title>", xml_text(curve.name));
    body += fmt::format("<polygon points=\"{}{}\" fill=\"{}\" fill-opacity=\"0.15\"/>", upper, lower, colour);
    body += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}/>", line,
                        colour, dash(number));
    if (curve.points.size() == 1) {
      auto const& [round, at] = *curve.points.begin();
      auto const place = point(static_cast<double>(round), at.mean);
      auto const comma = place.find(',');
      body += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"{}\"/>", place.substr(0, comma),
                          place.substr(comma + 1), colour);
    }
    body += "</g>\n";
    double const y = kTop + kHeight + 62 + kLegendLine * static_cast<double>(number);
    body += fmt::format("<path d=\"M{:.1f} {:.1f}h28\" stroke=\"{}\" stroke-width=\"2\"{}/>\n", kLeft, y - 4,
                        colour, dash(number));
    text(kLeft + 36, y, "start", curve.name);
  }

  std::string body;

 private:
  static std::string dash(size_t number) {
    auto const* dashes = kDashes[number / kCurveColours.size() % kDashes.size()];
    return *dashes == '\0' ? "" : fmt::format(" stroke-dasharray=\"{}\"", dashes);
  }
  void text(double x, double y, char const* anchor, std::string const& what) {
    body += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                        xml_text(what));
  }
  Axis x_, y_;
};

}  // namespace

std::string plot_svg(Sweep const& sweep, SweepMetric const& metric) {
  auto curves = curves_of(sweep, metric.path);
  std::erase_if(curves, [](Curve const& curve) { return curve.points.empty(); });
  FSLLM_CHECK(!curves.empty(),
              "no round of {} has a number {} (nothing to draw). Run it first, or name another metric.",
              sweep.spec.file.string(), metric.path);
  double low = std::numeric_limits<double>::infinity(), high = -low, last = 1;
  for (auto const& curve : curves)
    for (auto const& [round, at] : curve.points) {
      low = std::min(low, at.mean - at.deviation.value_or(0));
      high = std::max(high, at.mean + at.deviation.value_or(0));
      last = std::max(last, static_cast<double>(round));
    }
  Axis rounds = axis_over(0, last, 8);
  rounds.step = std::max(rounds.step, 1.0);
  rounds.high = std::ceil(last / rounds.step) * rounds.step;
  Drawing drawing(rounds, axis_over(low, high, 6));
  drawing.axes(metric.path);
  size_t longest = 0;
  for (size_t i = 0; i < curves.size(); ++i) {
    drawing.curve(curves[i], i);
    longest = std::max(longest, curves[i].name.size());
  }
  double const width = std::max(kLeft + kWidth + 24, kLeft + 60 + 7.2 * static_cast<double>(longest));
  double const height = kTop + kHeight + 62 + kLegendLine * static_cast<double>(curves.size());
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#fff\"/>\n{2}</svg>\n",
      width, height, drawing.body);
}

}  // namespace fsllm

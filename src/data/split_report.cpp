// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/split_report.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/core/plot.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using GroupShares = std::map<std::string, double>;

std::vector<ShardSummary const*> clients_of(ShardIndex const& index) {
  std::vector<ShardSummary const*> clients;
  for (auto const& client : index.clients)
    if (client.client_id > 0) clients.push_back(&client);
  return clients;
}

std::map<std::string, int64_t> groups_of_all(ShardIndex const& index) {
  std::map<std::string, int64_t> all;
  for (auto const* client : clients_of(index))
    for (auto const& [name, rows] : client->train.groups) all[name] += rows;
  return all;
}

GroupShares shares_of_groups(std::map<std::string, int64_t> const& groups) {
  double sum = 0;
  for (auto const& [name, rows] : groups) sum += static_cast<double>(rows);
  GroupShares shares;
  for (auto const& [name, rows] : groups) shares[name] = static_cast<double>(rows) / sum;
  return shares;
}

double entropy(GroupShares const& shares) {
  double bits = 0;
  for (auto const& [name, share] : shares) bits -= share > 0 ? share * std::log2(share) : 0;
  return bits;
}

/// Groups by rows, most first; as many as `count`.
std::vector<std::pair<std::string, int64_t>> commonest(std::map<std::string, int64_t> const& groups,
                                                       size_t count) {
  std::vector<std::pair<std::string, int64_t>> order(groups.begin(), groups.end());
  std::stable_sort(order.begin(), order.end(),
                   [](auto const& a, auto const& b) { return a.second > b.second; });
  order.resize(std::min(order.size(), count));
  return order;
}

/// Of the commonest categories; the others share a grey.
constexpr char const* kOtherColour = "#bbbbbb";
std::string colour(size_t i) {
  return i < kCurveColours.size() ? kCurveColours.at(i) : kOtherColour;
}

}  // namespace

Heterogeneity heterogeneity(ShardIndex const& index) {
  Heterogeneity h;
  auto const clients = clients_of(index);
  if (clients.empty()) return h;
  auto const n = static_cast<double>(clients.size());
  double mean = 0, square = 0;
  for (auto const* client : clients) mean += static_cast<double>(client->train.rows) / n;
  for (auto const* client : clients)
    square += std::pow(static_cast<double>(client->train.rows) - mean, 2) / n;
  h.size_variation = mean > 0 ? std::sqrt(square) / mean : 0;
  auto const all = shares_of_groups(groups_of_all(index));
  h.has_groups = all.size() > 1;
  double counted = 0;
  for (auto const* client : clients) {
    if (client->train.groups.empty()) continue;
    auto const own = shares_of_groups(client->train.groups);
    GroupShares middle;
    double variation = 0;
    for (auto const& [name, share] : all) {
      auto const found = own.find(name);
      double const mine = found == own.end() ? 0 : found->second;
      middle[name] = (share + mine) / 2;
      variation += std::abs(share - mine) / 2;
    }
    h.total_variation += variation;
    h.jensen_shannon += std::max(0.0, entropy(middle) - (entropy(all) + entropy(own)) / 2);
    h.effective_groups += std::exp2(entropy(own));
    ++counted;
  }
  for (auto* sum : {&h.total_variation, &h.jensen_shannon, &h.effective_groups})
    *sum /= std::max(1.0, counted);
  return h;
}

std::string split_report(ShardIndex const& index) {
  std::string text = fmt::format("{:>8} {:>10} {:>12} {:>8} {:>8}  {}\n", "client", "rows", "tokens", "val",
                                 "test", groups_of_all(index).size() > 1 ? "commonest categories" : "");
  for (auto const* client : clients_of(index)) {
    std::string mix;
    for (auto const& [name, rows] : commonest(client->train.groups, 3))
      mix += fmt::format("{}{} {:.0f} %", mix.empty() ? "" : ", ", name,
                         100.0 * static_cast<double>(rows) / static_cast<double>(client->train.rows));
    text += fmt::format("{:>8} {:>10} {:>12} {:>8} {:>8}  {}\n", client->client_id, client->train.rows,
                        client->train.tokens, client->val.rows, client->test.rows,
                        groups_of_all(index).size() > 1 ? mix : "");
  }
  auto const h = heterogeneity(index);
  text += fmt::format("rows a client: standard deviation {:.2f} of the mean\n", h.size_variation);
  if (h.has_groups)
    text += fmt::format(
        "categories of a client against all: total variation {:.2f} (0 alike, 1 disjoint), Jensen-Shannon "
        "{:.2f} "
        "bits, {:.1f} effective categories\n",
        h.total_variation, h.jensen_shannon, h.effective_groups);
  return text;
}

namespace {

constexpr double kWidth = 600, kBar = 14, kGap = 4, kLeft = 80, kTop = 34;

/// A bar of one client: its rows by category, one beside the other, with names and numbers under the pointer.
std::string bar_of(ShardSummary const& client, std::vector<std::pair<std::string, int64_t>> const& categories,
                   double y, double a_row) {
  std::string body =
      fmt::format("<text x='{}' y='{:.0f}' text-anchor='end'>{}</text>", kLeft - 8, y + 11, client.client_id);
  double x = kLeft;
  int64_t grouped = 0;
  auto const piece = [&](int64_t rows, std::string const& fill, std::string const& name) {
    double const width = a_row * static_cast<double>(rows);
    if (rows > 0)
      body += fmt::format(
          "<rect x='{:.2f}' y='{:.0f}' width='{:.2f}' height='{:.0f}' fill='{}' stroke='white' "
          "stroke-width='0.5'><title>{}: {}</title></rect>",
          x, y, width, kBar, fill, xml_text(name), rows);
    x += width;
  };
  for (size_t i = 0; i < categories.size(); ++i) {
    auto const own = client.train.groups.find(categories[i].first);
    if (own == client.train.groups.end()) continue;
    piece(own->second, colour(i), categories[i].first);
    grouped += own->second;
  }
  piece(client.train.rows - grouped, kOtherColour, "rows without a category");
  return body + fmt::format("<text x='{:.0f}' y='{:.0f}'>{}</text>\n", x + 5, y + 11, client.train.rows);
}

/// Lines down from the top of the bars, numbers below them.
std::string rows_axis(Axis const& axis, double a_row, double bottom) {
  std::string body;
  auto const marks = std::lround((axis.high - axis.low) / axis.step);
  for (int64_t mark = 0; mark <= marks; ++mark) {
    double const at = axis.low + axis.step * static_cast<double>(mark);
    double const x = kLeft + a_row * at;
    body += fmt::format(
        "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2:.0f}' stroke='#dddddd'/><text x='{0:.1f}' "
        "y='{3:.0f}' "
        "text-anchor='middle'>{4:.0f}</text>\n",
        x, kTop - 4, bottom + 4, bottom + 18, at);
  }
  return body + fmt::format("<text x='{:.0f}' y='{:.0f}' text-anchor='middle'>training rows</text>\n",
                            kLeft + kWidth / 2, bottom + 34);
}

std::string legend(std::vector<std::pair<std::string, int64_t>> const& categories, double& y) {
  std::string body;
  auto const entry = [&](std::string const& fill, std::string const& name) {
    body += fmt::format(
        "<rect x='{0}' y='{1:.0f}' width='12' height='12' fill='{2}'/><text x='{3}' y='{4:.0f}'>{5}</text>\n",
        kLeft, y, fill, kLeft + 18, y + 11, xml_text(name));
    y += 18;
  };
  auto const named = std::min(categories.size(), kCurveColours.size());
  for (size_t i = 0; i < named; ++i)
    entry(colour(i), fmt::format("{} ({})", categories[i].first, categories[i].second));
  int64_t rest = 0;
  for (size_t i = named; i < categories.size(); ++i) rest += categories[i].second;
  if (rest > 0) entry(kOtherColour, fmt::format("{} more categories ({})", categories.size() - named, rest));
  return body;
}

}  // namespace

std::string split_plot(ShardIndex const& index) {
  auto const clients = clients_of(index);
  auto const all = commonest(groups_of_all(index), 1000);
  int64_t most = 1;
  for (auto const* client : clients) most = std::max(most, client->train.rows);
  auto const axis = axis_over(0, static_cast<double>(most), 6);
  double const a_row = kWidth / axis.high;
  double const bottom = kTop + (kBar + kGap) * static_cast<double>(clients.size());
  auto body = rows_axis(axis, a_row, bottom);
  double y = kTop;
  for (auto const* client : clients) {
    body += bar_of(*client, all, y, a_row);
    y += kBar + kGap;
  }
  body += fmt::format(
      "<text x='16' y='{0:.0f}' text-anchor='middle' transform='rotate(-90 16 {0:.0f})'>client</text>\n",
      (kTop + bottom) / 2);
  y = bottom + 48;
  body += legend(all, y);
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='{:.0f}' font-family='sans-serif' "
      "font-size='12'>\n"
      "<rect width='100%' height='100%' fill='white'/><text x='{}' y='18' font-weight='bold'>Training rows "
      "of each "
      "client: {}, splitter {}</text>\n"
      "{}</svg>\n",
      y + 10, kLeft, xml_text(index.dataset), xml_text(index.splitter), body);
}

void write_split_report(std::filesystem::path const& dir, ShardIndex const& index,
                        std::filesystem::path const& scratch) {
  write_file_atomic(dir / "report.txt", printable(split_report(index)), scratch, FileAccess::owner_only);
  write_file_atomic(dir / "report.svg", split_plot(index), scratch, FileAccess::owner_only);
}

}  // namespace fsllm

// SPDX-License-Identifier: Apache-2.0
#include "page.hpp"

#include <fmt/core.h>

#include "fsllm/core/plot.hpp"

namespace fsllm::detail {
namespace {

/// Rows that stand open; longer tables are folded.
constexpr size_t kOpenRows = 60;

/// Colours by Okabe and Ito, lighter on dark ground.
constexpr char const* kStyle = R"(
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1c1e; --soft: #63636b; --rule: #dcdce2; --tile: #f4f4f7;
  --c0: #0072b2; --c1: #d55e00; --c2: #007a5a; --c3: #b1558f; --c4: #a87000; --c5: #3c8dc0; }
@media (prefers-color-scheme: dark) { :root { --ground: #16161a; --ink: #ececf1; --soft: #a5a5b0; --rule: #3a3a44;
  --tile: #212128; --c0: #56b4e9; --c1: #f0883e; --c2: #2fbf91; --c3: #e39ac6; --c4: #e6b43c; --c5: #9ad0f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1080px; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 28px 0 8px; padding-top: 10px; border-top: 1px solid var(--rule); }
p { margin: 6px 0; } .soft, .note { color: var(--soft); font-size: .87rem; overflow-wrap: anywhere; }
.warning { border-left: 4px solid var(--c1); padding: 4px 10px; background: var(--tile); overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(155px, 1fr)); gap: 8px; margin: 14px 0; }
.tiles div { background: var(--tile); border-radius: 8px; padding: 8px 10px; overflow-wrap: anywhere; min-width: 0; }
.tiles dt { color: var(--soft); font-size: .78rem; } .tiles dd { margin: 0; font-weight: 600; font-size: .92rem; }
dl { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 14px; }
figure { margin: 0; min-width: 0; max-width: 640px; } figcaption { font-size: .9rem; font-weight: 600; margin-bottom: 2px; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--soft); font-family: inherit; }
.grid { stroke: var(--rule); fill: none; } .axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .thin { stroke-width: 1.1; } .before { stroke-dasharray: 3 3; stroke-width: 1.2; }
.legend { font-size: .8rem; color: var(--soft); margin: 2px 0 0; }
.legend span { margin-right: 12px; white-space: nowrap; } .legend i { display: inline-block; width: 12px; height: 12px;
  border-radius: 3px; margin-right: 5px; vertical-align: -1px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); }
.c5 { stroke: var(--c5); } .f0, .m0 { fill: var(--c0); } .f1, .m1 { fill: var(--c1); } .f2, .m2 { fill: var(--c2); }
.f3, .m3 { fill: var(--c3); } .f4, .m4 { fill: var(--c4); } .f5, .m5 { fill: var(--c5); }
.band { fill: var(--c0); } .b0 { opacity: .16; } .b1 { opacity: .3; }
i.c0, i.f0 { background: var(--c0); } i.c1, i.f1 { background: var(--c1); } i.c2, i.f2 { background: var(--c2); }
i.c3, i.f3 { background: var(--c3); } i.c4, i.f4 { background: var(--c4); } i.c5, i.f5 { background: var(--c5); }
i.b0, i.b1 { background: var(--c0); }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px 3px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; } th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 90px; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--c0); }
@media print { :root { color-scheme: light; --ground: #fff; --ink: #000; --soft: #444; --rule: #bbb; --tile: #f4f4f4;
    --c0: #0072b2; --c1: #d55e00; --c2: #007a5a; --c3: #b1558f; --c4: #a87000; --c5: #3c8dc0; }
  body { max-width: none; padding: 0; font-size: 10pt; } .charts { grid-template-columns: 1fr 1fr; }
  figure, .tiles div, tr { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding-right: 7px; } thead { display: table-header-group; }
  .tiles { grid-template-columns: repeat(4, 1fr); } @page { margin: 14mm; } }
)";

std::string markers() {
  std::string defs;
  for (int i = 0; i < 6; ++i)
    defs += fmt::format(
        "<marker id=\"m{0}\" viewBox=\"0 0 4 4\" refX=\"2\" refY=\"2\" markerWidth=\"5\" "
        "markerHeight=\"5\" markerUnits=\"userSpaceOnUse\"><circle class=\"m{0}\" cx=\"2\" "
        "cy=\"2\" r=\"2\"/></marker>",
        i);
  return "<svg width=\"0\" height=\"0\" style=\"position:absolute;width:0;height:0\" "
         "aria-hidden=\"true\"><defs>" +
         defs + "</defs></svg>\n";
}

}  // namespace

std::string page_html(std::string const& title, std::string const& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n{}{}</body>\n</html>\n",
      xml_text(title), kStyle, markers(), body);
}

std::string table_html(Table const& table) {
  if (table.rows.empty()) return "";
  auto const cell = [&](char const* tag, size_t column, std::string const& text) {
    return fmt::format("<{0}{1}>{2}</{0}>", tag, column < table.texts ? " class=\"text\"" : "",
                       xml_text(text));
  };
  std::string html = fmt::format("<div class=\"scroll\"><table data-table=\"{}\">\n<thead><tr>", table.title);
  for (size_t c = 0; c < table.header.size(); ++c) html += cell("th", c, table.header[c]);
  html += "</tr></thead>\n<tbody>\n";
  for (auto const& row : table.rows) {
    html += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) html += cell("td", c, row[c]);
    html += "</tr>\n";
  }
  html += "</tbody></table></div>\n";
  if (!table.note.empty()) html += fmt::format("<p class=\"note\">{}</p>\n", xml_text(table.note));
  if (table.rows.size() <= kOpenRows) return html;
  return fmt::format("<details><summary>{} rows</summary>\n{}</details>\n", table.rows.size(), html);
}

std::string tiles_html(std::vector<std::pair<std::string, std::string>> const& facts) {
  std::string html = "<dl class=\"tiles\">\n";
  for (auto const& [name, value] : facts)
    html += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", xml_text(name), xml_text(value));
  return html + "</dl>\n";
}

std::string section_html(std::string const& heading, std::string const& body) {
  return body.empty() ? "" : fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", xml_text(heading), body);
}

}  // namespace fsllm::detail

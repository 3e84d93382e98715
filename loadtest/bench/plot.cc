// SPDX-License-Identifier: Apache-2.0
#include "loadtest/bench/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace mcs::loadtest {

namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 420;
constexpr double kLeft = 70;
constexpr double kRight = 230;  // with the names of the lines
constexpr double kTop = 40;
constexpr double kBottom = 55;
// Okabe and Ito's colours, which colour-blind people can tell apart.
constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#e69f00", "#56b4e9", "#000000", "#f0e442"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that there are about five steps.
double step_for(double most) {
  const double power = std::pow(10, std::floor(std::log10(most / 5)));
  const double rest = most / 5 / power;
  return power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
}

}  // namespace

std::string Plot::svg() const {
  double x_least = 1e300;
  double x_most = 0;
  double y_most = 0;
  for (const Line& line : lines) {
    for (const auto& [x, y] : line.points) {
      x_least = std::min(x_least, x);
      x_most = std::max(x_most, x);
      y_most = std::max(y_most, y);
    }
  }
  if (x_most <= 0) x_least = x_most = 1;
  if (y_most <= 0) y_most = 1;
  double low = std::floor(std::log10(x_least));
  double high = std::max(low + 1, std::ceil(std::log10(x_most)));
  if (!x_ticks.empty()) {
    low = std::log10(std::min(x_least, x_ticks.front()));
    high = std::log10(std::max(x_most, x_ticks.back()));
  }
  const double step = step_for(y_most);
  const double top = std::ceil(y_most / step) * step;
  const auto at_x = [&](double x) {
    return kLeft + (std::log10(x) - low) / (high - low) * (kWidth - kLeft - kRight);
  };
  const auto at_y = [&](double y) {
    return kHeight - kBottom - y / top * (kHeight - kTop - kBottom);
  };

  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n"
      "<text x=\"{2}\" y=\"22\" font-size=\"14\">{3}</text>\n",
      kWidth, kHeight, kLeft, escaped(title));
  for (double y = 0; y <= top * 1.0001; y += step) {
    out += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:.4g}</text>\n",
        kLeft, kWidth - kRight, at_y(y), kLeft - 6, at_y(y) + 4, y);
  }
  for (const double tick : x_ticks) {
    const double x = at_x(tick);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#ddd\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:g}</text>\n",
        x, kTop, kHeight - kBottom, kHeight - kBottom + 18, tick);
  }
  for (double power = low; x_ticks.empty() && power <= high; ++power) {
    const double x = at_x(std::pow(10, power));
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#ddd\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">10<tspan dy=\"-5\" "
        "font-size=\"9\">{4:g}</tspan></text>\n",
        x, kTop, kHeight - kBottom, kHeight - kBottom + 18, power);
  }
  out += fmt::format(
      "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n"
      "<text x=\"16\" y=\"{:.1f}\" transform=\"rotate(-90 16 {:.1f})\" "
      "text-anchor=\"middle\">{}</text>\n",
      (kLeft + kWidth - kRight) / 2, kHeight - 14, escaped(x_label), (kTop + kHeight - kBottom) / 2,
      (kTop + kHeight - kBottom) / 2, escaped(y_label));
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    const bool dashed = i >= kColours.size();
    std::string points;
    for (const auto& [x, y] : lines[i].points) {
      points += fmt::format("{:.1f},{:.1f} ", at_x(x), at_y(y));
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>\n", at_x(x),
                         at_y(y), colour);
    }
    const double y = kTop + 12 + 18 * static_cast<double>(i);
    out += fmt::format(
        "<polyline points=\"{0}\" fill=\"none\" stroke=\"{1}\" stroke-width=\"1.5\"{2}/>\n"
        "<line x1=\"{3}\" x2=\"{4}\" y1=\"{5:.1f}\" y2=\"{5:.1f}\" stroke=\"{1}\" "
        "stroke-width=\"2\"{2}/><text x=\"{6}\" y=\"{7:.1f}\">{8}</text>\n",
        points, colour, dashed ? " stroke-dasharray=\"4 3\"" : "", kWidth - kRight + 14,
        kWidth - kRight + 34, y, kWidth - kRight + 40, y + 4, escaped(lines[i].name));
  }
  return out + "</svg>\n";
}

}  // namespace mcs::loadtest
